"use strict";
/* 2-D cases: the picture at native resolution, the map on a canvas above it, outlines as vectors. */
voxplain.kinds["2d"] = class extends voxplain.Viewer {
  async start() {
    if (typeof DecompressionStream === "undefined") throw new Error("this browser is too old");
    const { data } = this;
    this.scroll = document.createElement("div");
    this.scroll.className = "scroll";
    this.scroll.tabIndex = 0;
    this.scroll.setAttribute("role", "group");
    this.sheet = document.createElement("div");
    this.sheet.className = "sheet";
    this.picture = new Image();
    this.picture.alt = "";
    this.canvas = document.createElement("canvas");
    this.canvas.width = data.map_columns;
    this.canvas.height = data.map_rows;
    // A map of blocks of pixels may reach beyond the picture by a part of a block.
    this.canvas.style.height = `${100 * data.map_rows * data.pixels[0] / data.rows}%`;
    this.canvas.style.width = `${100 * data.map_columns * data.pixels[1] / data.columns}%`;
    this.canvas.setAttribute("role", "img");
    this.lines = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.lines.setAttribute("viewBox", `0 0 ${data.columns} ${data.rows}`);
    this.lines.setAttribute("preserveAspectRatio", "none");
    this.lines.setAttribute("aria-hidden", "true");
    this.sheet.append(this.picture, this.canvas, this.lines);
    this.scroll.append(this.sheet);
    this.stage.prepend(this.scroll);
    this.letters();
    this.cache = new Map();
    await this.showImage();
    await this.showMap(true);
    this.fit();
    this.wire();
  }

  letters() {
    const spots = [["left:0.6rem;top:50%"], ["right:0.6rem;top:50%"], ["top:0.4rem;left:50%"], ["bottom:0.4rem;left:50%"]];
    this.data.letters.forEach((letter, i) => {
      const node = document.createElement("span");
      node.className = "letter";
      node.style = spots[i];
      node.textContent = letter;
      this.stage.append(node);
    });
  }

  async showImage() {
    const facts = this.data.images[this.image];
    this.sheet.classList.toggle("gray", facts.gray === true);
    this.picture.src = voxplain.text(facts.blob);
    await this.picture.decode();
  }

  async values(blob) {
    if (!this.cache.has(blob)) {
      const packed = Uint8Array.from(atob(voxplain.text(blob)), (letter) => letter.charCodeAt(0));
      const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
      this.cache.set(blob, new Int8Array(await new Response(stream).arrayBuffer()));
    }
    return this.cache.get(blob);
  }

  async showMap() {
    this.steps = await this.values(this.map.channels[this.channel].blob);
    this.showLayers();
  }

  showLayers() {
    this.lines.replaceChildren(...this.visibleOutlines().map((outline) => {
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("d", voxplain.text(outline.blob));
      path.setAttribute("fill", "none");
      path.setAttribute("stroke", outline.kind === "reference" ? "#79e0b0" : "#f4f4f0");
      path.setAttribute("stroke-width", "0.9");
      path.setAttribute("vector-effect", "non-scaling-stroke");
      if (outline.kind === "reference") path.setAttribute("stroke-dasharray", "5 4");
      return path;
    }));
    this.restyle();
  }

  restyle() {
    this.canvas.hidden = !this.visible.map;
    this.canvas.style.opacity = this.opacity;
    const table = Array.from({ length: 256 }, (_, i) => {
      const [r, g, b, a] = voxplain.shade(this.data.ramps, this.map.sign, (i < 128 ? i : i - 256) / 127, this.threshold);
      return [r, g, b, 255 * a];
    });
    const context = this.canvas.getContext("2d");
    const picture = context.createImageData(this.canvas.width, this.canvas.height);
    for (let i = 0; i < this.steps.length; i += 1) picture.data.set(table[this.steps[i] & 255], 4 * i);
    context.putImageData(picture, 0, 0);
    this.canvas.setAttribute("aria-label", `Image with map ${this.map.title}`);
    if (this.at) this.located(...this.at);
  }

  wire() {
    const zoom = { in: 1.4, out: 1 / 1.4 };
    this.root.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => {
      const kind = button.dataset.zoom;
      if (kind === "fit") this.fit();
      else if (kind === "native") this.resize(1 / window.devicePixelRatio);
      else this.resize(this.scale * zoom[kind]);
    }));
    this.scroll.addEventListener("keydown", (event) => {
      if (event.key === "+" || event.key === "=") this.resize(this.scale * zoom.in);
      else if (event.key === "-") this.resize(this.scale * zoom.out);
      else return;
      event.preventDefault();
    });
    this.scroll.addEventListener("wheel", (event) => {
      if (document.activeElement !== this.scroll && !event.ctrlKey) return;
      event.preventDefault();
      this.resize(this.scale * Math.exp(-event.deltaY / 500), event);
    }, { passive: false });
    this.sheet.addEventListener("pointermove", (event) => {
      const box = this.sheet.getBoundingClientRect();
      this.located((event.clientY - box.top) / box.height * this.data.rows, (event.clientX - box.left) / box.width * this.data.columns);
    });
    this.sheet.addEventListener("pointerdown", () => this.scroll.focus());
    new ResizeObserver(() => { if (this.fitted) this.fit(); }).observe(this.stage);
    this.located(this.map.start[0], this.map.start[1]);
  }

  fit() {
    const { columns, rows, aspect } = this.data;
    this.resize(Math.min(this.stage.clientWidth / (columns * aspect), this.stage.clientHeight / rows));
    this.fitted = true;
  }

  /* Zooms around the pointer, or around the center. */
  resize(scale, event) {
    const { columns, rows, aspect } = this.data;
    const before = this.sheet.getBoundingClientRect();
    const frame = this.scroll.getBoundingClientRect();
    const x = event ? event.clientX : frame.left + frame.width / 2;
    const y = event ? event.clientY : frame.top + frame.height / 2;
    const share = [(x - before.left) / (before.width || 1), (y - before.top) / (before.height || 1)];
    this.fitted = false;
    this.scale = Math.min(Math.max(scale, 0.05), 40);
    this.sheet.style.width = `${columns * aspect * this.scale}px`;
    this.sheet.style.height = `${rows * this.scale}px`;
    this.sheet.classList.toggle("crisp", this.scale >= 2);
    const after = this.sheet.getBoundingClientRect();
    this.scroll.scrollLeft += after.left + share[0] * after.width - x;
    this.scroll.scrollTop += after.top + share[1] * after.height - y;
  }

  goTo([row, column]) {
    this.resize(Math.max(this.scale, 4 * Math.min(this.stage.clientWidth / this.data.columns, this.stage.clientHeight / this.data.rows)));
    const { columns, rows } = this.data;
    this.scroll.scrollLeft = ((column + 0.5) / columns) * this.sheet.clientWidth - this.scroll.clientWidth / 2;
    this.scroll.scrollTop = ((row + 0.5) / rows) * this.sheet.clientHeight - this.scroll.clientHeight / 2;
    this.located(row, column);
  }

  located(row, column) {
    this.at = [row, column];
    const [down, across] = this.data.pixels;
    const r = Math.min(Math.floor(row / down), this.canvas.height - 1);
    const c = Math.min(Math.floor(column / across), this.canvas.width - 1);
    const step = this.steps[r * this.canvas.width + c];
    this.showFacts([["Row", Math.floor(row)], ["column", Math.floor(column)], ["map", this.valueWords((step / 127) * this.map.limit)]]);
  }

  convention() {
    const sides = { R: "right", A: "front" };
    return this.data.letters.length ? `Patient's ${sides[this.data.letters[0]]} at the left. ` : "";
  }
};
