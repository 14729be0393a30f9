"""voxplain: what a medical-image network looked at, and how far that answer can be trusted."""

import lazy_loader

from voxplain.version import __version__ as __version__

# Names are imported when they are first used, so that the command line starts without torch;
# which names there are stands in ``__init__.pyi``.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
