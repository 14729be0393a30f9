"use strict";
/* Outlines of masks as vectors on a canvas above the planes that NiiVue draws. */
voxplain.Outlines = class {
  constructor(nv, canvas) {
    this.nv = nv;
    this.below = canvas;
    this.canvas = document.createElement("canvas");
    this.canvas.className = "outlines";
    this.canvas.setAttribute("aria-hidden", "true");
    canvas.after(this.canvas);
    this.masks = [];
    this.cache = new Map();
    const draw = nv.drawScene.bind(nv);
    nv.drawScene = () => { const place = draw(); this.draw(); return place; };
  }

  /* Draws masks, given as {volume, color, dashed}, in their order. */
  show(masks) {
    this.masks = masks;
    this.draw();
  }

  draw() {
    const { canvas, below, nv } = this;
    if (canvas.width !== below.width || canvas.height !== below.height) {
      canvas.width = below.width;
      canvas.height = below.height;
    }
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!nv.volumes.length) return;
    context.lineWidth = 1.1 * (nv.uiData.dpr || 1);
    context.lineCap = "round";
    for (const tile of nv.screenSlices) {
      if (tile.axCorSag <= 2) this.masks.forEach((mask) => this.trace(context, tile, mask));
    }
  }

  trace(context, tile, mask) {
    const axis = 2 - tile.axCorSag;
    const [across, up] = [0, 1, 2].filter((other) => other !== axis);
    const sizes = mask.volume.dimsRAS.slice(1, 4);
    const slice = Math.min(Math.floor(tile.sliceFrac * sizes[axis]), sizes[axis] - 1);
    const [left, top, width, height] = tile.leftTopWidthHeight;
    const [low, high] = [mask.volume.extentsMinOrtho, mask.volume.extentsMaxOrtho];
    const place = (index, a) => low[a] + (index + 0.5) / sizes[a] * (high[a] - low[a]);
    const x = (index) => left + (place(index, across) - tile.leftTopMM[0]) / tile.fovMM[0] * width;
    const y = (index) => top + (1 - (place(index, up) - tile.leftTopMM[1]) / tile.fovMM[1]) * height;
    context.save();
    context.beginPath();
    context.rect(left, top, width, height);
    context.clip();
    context.strokeStyle = mask.color;
    context.beginPath();
    for (const [i0, j0, i1, j1] of this.segments(mask.volume, axis, slice)) {
      if (mask.dashed && (Math.floor(i0 + j0) & 2)) continue;
      context.moveTo(x(i0), y(j0));
      context.lineTo(x(i1), y(j1));
    }
    context.stroke();
    context.restore();
  }

  segments(volume, axis, slice) {
    const key = `${volume.id} ${axis} ${slice}`;
    if (!this.cache.has(key)) {
      if (this.cache.size > 300) this.cache.clear();
      this.cache.set(key, this.march(volume, axis, slice));
    }
    return this.cache.get(key);
  }

  /* Marching squares on the voxel centers of one slice; voxels beyond the volume are outside of the mask. */
  march(volume, axis, slice) {
    const sizes = volume.dimsRAS.slice(1, 4);
    const strides = [1, sizes[0], sizes[0] * sizes[1]];
    const [across, up] = [0, 1, 2].filter((other) => other !== axis);
    const [columns, rows] = [sizes[across], sizes[up]];
    const at = (i, j) => (i < 0 || j < 0 || i >= columns || j >= rows ? 0
      : volume.img[i * strides[across] + j * strides[up] + slice * strides[axis]] > 0 ? 1 : 0);
    const segments = [];
    for (let j = -1; j < rows; j += 1) {
      for (let i = -1; i < columns; i += 1) {
        const corners = at(i, j) | (at(i + 1, j) << 1) | (at(i + 1, j + 1) << 2) | (at(i, j + 1) << 3);
        if (corners === 0 || corners === 15) continue;
        const sides = [[i + 0.5, j], [i + 1, j + 0.5], [i + 0.5, j + 1], [i, j + 0.5]];
        const crossed = [0, 1, 2, 3].filter((k) => ((corners >> k) & 1) !== ((corners >> ((k + 1) % 4)) & 1));
        for (let k = 0; k + 1 < crossed.length; k += 2) segments.push([...sides[crossed[k]], ...sides[crossed[k + 1]]]);
      }
    }
    return segments;
  }
};
