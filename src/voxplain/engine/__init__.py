"""The engine: how a network is asked, by gradient passes and by masked passes."""
