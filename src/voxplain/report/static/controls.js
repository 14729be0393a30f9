"use strict";
/* What both viewers share: choice of map, sliders, color bar, caption. */
const voxplain = (() => {
  const MAX_LIVE = 6;
  const kinds = {};
  const viewers = {};
  const live = [];

  const text = (id) => document.getElementById(id).textContent;

  const number = (value) => {
    if (value === 0) return "0";
    const size = Math.abs(value);
    const plain = size >= 1e-3 && size < 1e7
      ? Number(value.toPrecision(2)).toLocaleString("en-US", { maximumSignificantDigits: 2 })
      : value.toExponential(1).replace(/e([+-]?)(\d+)/, (_, sign, digits) =>
        ` × 10${sign === "-" ? "⁻" : ""}${[...digits].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("")}`);
    return plain.replace("-", "−");
  };

  const colorAt = (ramp, share) => {
    const place = Math.min(Math.max(share, 0), 1) * (ramp.length - 1);
    const low = Math.floor(place);
    const high = Math.min(low + 1, ramp.length - 1);
    return ramp[low].map((value, i) => value + (ramp[high][i] - value) * (place - low));
  };

  /* Color in 0..255 and opacity in 0..1 for a share of the limit in -1..1, as in the figures. */
  const shade = (ramps, sign, share, threshold) => {
    const size = Math.abs(share);
    const ramp = sign !== "signed" ? ramps.sequential : share < 0 ? ramps.negative : ramps.positive;
    const alpha = size <= threshold ? 0 : Math.pow((size - threshold) / (1 - threshold || 1e-9), 0.6);
    return [...colorAt(ramp, size), Math.min(alpha, 1)];
  };

  class Viewer {
    constructor(root) {
      this.root = root;
      this.data = JSON.parse(root.querySelector(".viewer-data").textContent);
      this.stage = root.querySelector(".stage");
      this.map = this.data.maps[0];
      this.channel = 0;
      this.image = 0;
      this.threshold = 0.05;
      this.opacity = 0.9;
      this.visible = Object.fromEntries([...root.querySelectorAll("[data-show]")].map((box) => [box.dataset.show, box.checked]));
      this.busy = Promise.resolve();
    }

    find(selector) { return this.root.querySelector(selector); }

    /* Connects the controls to the methods of the subclass that draw. */
    connect() {
      const on = (selector, type, action) =>
        this.root.querySelectorAll(selector).forEach((node) => node.addEventListener(type, (event) => action(node, event)));
      on("input[type=radio]", "change", (node) => this.choose(node.value));
      on("[data-opacity]", "input", (node) => { this.opacity = node.value / 100; this.changed(); });
      on("[data-threshold]", "input", (node) => { this.threshold = node.value / 100; this.changed(); });
      on("[data-map-channel]", "change", (node) => { this.channel = Number(node.value); this.queue(() => this.showMap(false)); });
      on("[data-image]", "change", (node) => { this.image = Number(node.value); this.queue(() => this.showImage()); });
      on("[data-show]", "change", (node) => { this.visible[node.dataset.show] = node.checked; this.queue(() => this.showLayers()); });
      on("[data-strongest]", "click", () => this.goTo(this.map.start));
      const chosen = this.find("input[type=radio]:checked");
      if (chosen) this.map = this.data.maps.find((map) => map.id === chosen.value);
      this.opacity = this.find("[data-opacity]").value / 100;
      this.threshold = this.find("[data-threshold]").value / 100;
      this.fillChannels();
      this.describe();
    }

    choose(id) {
      this.map = this.data.maps.find((map) => map.id === id);
      this.channel = 0;
      this.fillChannels();
      this.queue(() => this.showMap(true));
    }

    fillChannels() {
      const pick = this.find("[data-map-channel]");
      pick.replaceChildren(...this.map.channels.map((channel, i) => new Option(channel.name, i)));
      this.find("[data-map-channel-row]").hidden = this.map.channels.length < 2;
    }

    /* Runs changes one after the other; the message of one that fails is shown, and the next one runs. */
    queue(action) {
      this.busy = this.busy.then(action).then(() => this.describe()).catch((error) => this.say(error.message));
      return this.busy;
    }

    /* Sliders fire faster than volumes are drawn, so only the last position is drawn. */
    changed() {
      this.describe();
      if (this.waiting) return;
      this.waiting = true;
      requestAnimationFrame(() => { this.waiting = false; this.queue(() => this.restyle()); });
    }

    describe() {
      const { map } = this;
      const signed = map.sign === "signed";
      const limit = number(map.limit);
      this.find('[data-out="opacity"]').value = `${Math.round(this.opacity * 100)} %`;
      this.find('[data-out="threshold"]').value = number(this.threshold * map.limit);
      this.find("[data-low]").textContent = signed ? "evidence against" : "none";
      this.find("[data-high]").textContent = map.sign === "absolute" ? "influence, either way" : "evidence for";
      this.find("[data-units]").textContent = map.units;
      this.find("[data-minimum]").textContent = signed ? `≤ −${limit}` : "0";
      this.find("[data-middle]").textContent = signed ? "0" : "";
      this.find("[data-maximum]").textContent = `≥ ${limit}`;
      this.find("[data-caption]").textContent =
        `${map.title}${map.channels.length > 1 ? `, ${map.channels[this.channel].name}` : ""}, model ${map.model}. ` +
        `Shown where ${signed ? "|value|" : "value"} > ${number(this.threshold * map.limit)}; colors saturate at ${signed ? "±" : ""}${limit}, ` +
        `the 99.5th percentile. ${this.convention()}Research use.`;
      this.paintBar();
    }

    convention() { return ""; }

    paintBar() {
      const canvas = this.find("[data-bar]");
      const context = canvas.getContext("2d");
      const picture = context.createImageData(canvas.width, 1);
      for (let i = 0; i < canvas.width; i += 1) {
        const along = i / (canvas.width - 1);
        const share = this.map.sign === "signed" ? 2 * along - 1 : along;
        const [r, g, b, a] = shade(this.data.ramps, this.map.sign, share, this.threshold);
        picture.data.set([r, g, b, 255 * a * this.opacity], 4 * i);
      }
      context.clearRect(0, 0, canvas.width, canvas.height);
      for (let y = 0; y < canvas.height; y += 1) context.putImageData(picture, 0, y);
    }

    /* Shows pairs of name and value below the picture. */
    showFacts(facts) {
      const line = this.find("[data-readout]");
      line.replaceChildren(...facts.map(([name, value]) => {
        const strong = document.createElement("b");
        strong.textContent = value;
        const fact = document.createElement("span");
        fact.append(`${name} `, strong);
        return fact;
      }));
    }

    /* The outlines of the chosen map that are switched on. */
    visibleOutlines() { return this.map.outlines.map((i) => this.data.outlines[i]).filter((outline) => this.visible[outline.kind]); }

    valueWords(value) {
      const full = 0.999 * this.map.limit;
      const words = Math.abs(value) >= full ? `${value > 0 ? "≥ " : "≤ "}${number(value)}` : number(value);
      if (this.map.sign !== "signed" || value === 0) return words;
      return `${words} (${value > 0 ? "for" : "against"})`;
    }

    say(message) {
      const line = this.find(".state");
      line.hidden = !message;
      line.textContent = message;
    }

    started() {
      this.stage.querySelector(".first").hidden = true;
      this.say("");
      live.push(this);
      if (live.length > MAX_LIVE) live.shift().rest();
    }

    /* Frees the graphics context of the viewer that was started first. */
    rest() { }
  }

  const start = async (root) => {
    if (viewers[root.id]) return;
    const viewer = new kinds[root.dataset.viewer](root);
    viewers[root.id] = viewer;
    viewer.connect();
    try {
      await viewer.start();
      viewer.started();
    } catch (error) {
      viewer.say(`The interactive viewer cannot start here (${error.message}). The figures show the same maps.`);
    }
  };

  const begin = () => {
    const roots = document.querySelectorAll("[data-viewer]");
    const watch = new IntersectionObserver((entries) => {
      entries.filter((entry) => entry.isIntersecting).forEach((entry) => start(entry.target));
    }, { rootMargin: "200px" });
    roots.forEach((root) => watch.observe(root));
  };

  return { Viewer, kinds, viewers, begin, text, number, shade };
})();
