// The graphs of concepts: links of one concept, or of one trail, are shown alone.
for (const graph of document.querySelectorAll(".graph")) {
  const nodes = [...graph.querySelectorAll("g[data-node]")];
  const links = [...graph.querySelectorAll("path")];
  const buttons = [...graph.querySelectorAll("button[data-trail]")];
  let trail = [];

  const mark = (chosen, shownNodes, shownLinks) => {
    graph.classList.toggle("chosen", chosen);
    for (const node of nodes) node.classList.toggle("shown", shownNodes.has(node.dataset.node));
    for (const link of links) link.classList.toggle("shown", shownLinks.has(link));
  };
  const showTrail = () => {
    const steps = new Set(trail.slice(1).map((node, index) => `${trail[index]}|${node}`));
    const kept = links.filter((link) => steps.has(`${link.dataset.from}|${link.dataset.to}`));
    mark(trail.length > 0, new Set(trail), new Set(kept));
  };
  const showNode = (name) => {
    const own = links.filter((link) => link.dataset.from === name || link.dataset.to === name);
    const near = new Set([name, ...own.flatMap((link) => [link.dataset.from, link.dataset.to])]);
    mark(true, near, new Set(own));
  };
  for (const node of nodes) {
    for (const event of ["pointerenter", "focus"]) node.addEventListener(event, () => showNode(node.dataset.node));
    for (const event of ["pointerleave", "blur"]) node.addEventListener(event, showTrail);
  }
  for (const button of buttons) {
    button.addEventListener("click", () => {
      trail = button.dataset.trail ? button.dataset.trail.split("|") : [];
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      showTrail();
    });
  }
}
