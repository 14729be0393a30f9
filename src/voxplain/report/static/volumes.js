"use strict";
/* 3-D cases in NiiVue: the image, and one signed map on top of it. */
voxplain.kinds["3d"] = class extends voxplain.Viewer {
  async start() {
    const canvas = document.createElement("canvas");
    if (!canvas.getContext("webgl2")) throw new Error("WebGL 2 is missing");
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.stage.prepend(this.canvas);
    this.nv = new niivue.Niivue({
      isRadiologicalConvention: true,
      sagittalNoseLeft: true,
      multiplanarShowRender: 0,
      multiplanarPadPixels: 6,
      showAllOrientationMarkers: true,
      isColorbar: false,
      dragAndDropEnabled: false,
      scrollRequiresFocus: true,
      isForceMouseClickToVoxelCenters: true,
      backColor: [0, 0, 0, 1],
      crosshairColor: [0.62, 0.62, 0.6, 1],
      crosshairWidth: 0.25,
      fontColor: [0.93, 0.92, 0.9, 1],
      logLevel: "error",
    });
    this.nv.onLocationChange = (place) => this.located(place);
    await this.nv.attachToCanvas(this.canvas, false);
    this.outlines = new voxplain.Outlines(this.nv, this.canvas);
    this.addRamps();
    this.cache = new Map();
    await this.showImage();
    this.view(3);
    await this.showMap(true);
    this.wire();
    this.describe();
  }

  addRamps() {
    for (const [name, colors] of Object.entries(this.data.ramps)) {
      const nodes = colors.map((_, i) => Math.round((i * 255) / (colors.length - 1)));
      const [R, G, B] = [0, 1, 2].map((c) => colors.map((color) => color[c]));
      this.nv.addColormap(`vox-${name}`, { R, G, B, A: nodes.map((i) => (i === 0 ? 0 : 255)), I: nodes });
    }
  }

  /* The volume of a blob, decoded at its first use. */
  async volume(blob, options) {
    if (!this.cache.has(blob)) {
      const base64 = voxplain.text(blob);
      this.cache.set(blob, await niivue.NVImage.loadFromBase64({ base64, name: `${blob}.nii.gz`, ...options }));
    }
    return this.cache.get(blob);
  }

  async showImage() {
    const facts = this.data.images[this.image];
    const [low, high] = facts.window;
    this.background = await this.volume(facts.blob, { colormap: "gray", cal_min: low, cal_max: high / 0.8 - low * 0.25 });
    const place = this.nv.volumes.length ? Array.from(this.nv.scene.crosshairPos) : null;
    this.stack();
    if (place) this.jump(place);
  }

  async showMap(move) {
    const { map } = this;
    const signed = map.sign === "signed";
    this.overlay = await this.volume(map.channels[this.channel].blob, {
      colormap: signed ? "vox-positive" : "vox-sequential",
      colormapNegative: signed ? "vox-negative" : "",
      cal_min: this.threshold * map.limit,
      cal_max: map.limit,
    });
    await this.showLayers();
    if (move) this.goTo(map.start);
  }

  async showLayers() {
    const masks = [];
    for (const outline of this.visibleOutlines()) {
      const dashed = outline.kind === "reference";
      masks.push({ volume: await this.volume(outline.blob, {}), color: dashed ? "#79e0b0" : "#f4f4f0", dashed });
    }
    this.outlines.show(masks);
    this.stack();
  }

  /* The signed map is always the last layer, as only there NiiVue draws its negative colors reliably. */
  stack() {
    if (!this.background) return;
    const overlays = this.overlay && this.visible.map ? [this.overlay] : [];
    this.nv.volumes = [this.background, ...overlays];
    this.nv.back = this.background;
    this.nv.overlays = this.nv.volumes.slice(1);
    this.style();
    this.nv.updateGLVolume();
  }

  style() {
    const { overlay, nv } = this;
    if (!overlay) return;
    overlay.cal_min = this.threshold * this.map.limit;
    overlay.cal_max = this.map.limit;
    overlay.opacity = this.opacity;
    overlay.colormapType = 2;
    const index = nv.volumes.indexOf(overlay);
    overlay.modulationImage = index < 0 ? null : index;
    overlay.modulateAlpha = 1;
  }

  restyle() {
    this.style();
    this.nv.updateGLVolume();
  }

  /* Millimeters of the patient: NiiVue takes an oblique volume for an upright one unless told. */
  goTo(mm) { this.jump(this.nv.mm2frac(mm, 0, true)); }

  jump(fraction) {
    this.nv.scene.crosshairPos = fraction;
    this.nv.createOnLocationChange();
    this.nv.drawScene();
  }

  wire() {
    this.sizes = this.nv.volumes[0].dimsRAS.slice(1, 4);
    this.sliders = [...this.root.querySelectorAll("[data-slice]")];
    this.sliders.forEach((slider, axis) => {
      slider.max = this.sizes[axis] - 1;
      slider.addEventListener("input", () => {
        const place = Array.from(this.nv.scene.crosshairPos);
        place[axis] = (Number(slider.value) + 0.5) / this.sizes[axis];
        this.jump(place);
      });
    });
    this.root.querySelectorAll("[data-view]").forEach((button) => button.addEventListener("click", () => {
      this.root.querySelectorAll("[data-view]").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      this.view(Number(button.dataset.view));
    }));
    this.canvas.addEventListener("keydown", (event) => this.key(event), true);
    this.nv.createOnLocationChange();
  }

  /* All planes, axial at the left, coronal and sagittal at the right, or one plane alone. */
  view(plane) {
    const split = 0.55;
    const all = [
      { sliceType: 0, position: [0, 0, split, 1] },
      { sliceType: 1, position: [split, 0, 1 - split, 0.5] },
      { sliceType: 2, position: [split, 0.5, 1 - split, 0.5] },
    ];
    this.nv.setCustomLayout(plane === 3 ? all : [{ sliceType: plane, position: [0, 0, 1, 1] }]);
  }

  key(event) {
    const steps = { ArrowLeft: [0, 1], ArrowRight: [0, -1], ArrowUp: [2, 1], ArrowDown: [2, -1], PageUp: [1, 1], PageDown: [1, -1] };
    const step = steps[event.key];
    if (event.key !== "Tab") event.stopImmediatePropagation();
    if (!step) return;
    event.preventDefault();
    const place = Array.from(this.nv.scene.crosshairPos);
    // From the center of a voxel to that of the next one, and not beyond the outermost.
    const size = this.sizes[step[0]];
    place[step[0]] = Math.min(Math.max(place[step[0]] + step[1] / size, 0.5 / size), 1 - 0.5 / size);
    this.jump(place);
  }

  located(place) {
    const mm = Array.from(place.mm).slice(0, 3);
    const at = mm.map((value) => value.toFixed(1).replace("-", "−").replace(/\.0$/, ""));
    if (this.sliders) this.sliders.forEach((slider, axis) => { slider.value = Math.floor(place.frac[axis] * this.sizes[axis]); });
    ["x", "y", "z"].forEach((name, i) => { this.find(`[data-out="${name}"]`).value = `${at[i]} mm`; });
    const facts = [["Position", `x ${at[0]}, y ${at[1]}, z ${at[2]} mm`]];
    if (this.overlay) facts.push(["map", this.valueWords(this.valueAt(this.overlay, mm))]);
    facts.push([this.data.images[this.image].name, voxplain.number(this.valueAt(this.background, mm))]);
    this.showFacts(facts);
    this.canvas.setAttribute("aria-label", `Image with map ${this.map.title}, at ${facts[0][1]}`);
  }

  valueAt(volume, mm) {
    const voxel = volume.mm2vox(mm);
    return volume.getValue(voxel[0], voxel[1], voxel[2], 0);
  }

  convention() { return "Patient's right at the left of axial and coronal planes. "; }

  rest() {
    const context = this.canvas.getContext("webgl2");
    this.nv.cleanup();
    this.canvas.remove();
    this.outlines.canvas.remove();
    context?.getExtension("WEBGL_lose_context")?.loseContext();
    this.stage.querySelector(".first").hidden = false;
    this.say("Paused to save graphics memory. Reload the page to start it again.");
  }
};
