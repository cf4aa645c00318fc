
"use strict";
// The map of images. One canvas; all text that comes from files is set as text, never as HTML.
(function () {
  const source = document.getElementById("seen");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const canvas = document.getElementById("plane"), pen = canvas.getContext("2d");
  const hover = document.getElementById("hover"), hoverImage = document.getElementById("hover-image");
  const hoverText = document.getElementById("hover-text");
  const legend = document.getElementById("legend"), chosenBox = document.getElementById("chosen");
  const count = data.x.length, EDGE = 22, REACH = 14, GRID = 10000, CLOSEST = 32, STEP = 1.6, SMALLEST = 24;
  const OKABE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a00", "#777777"];
  const PETROFF = ["#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"];
  const sprite = new Image();
  let colour = data.labels ? "labels" : "clusters", only = -1, chosen = -1, under = -1, size = [0, 0], places = [];
  let zoom = 1, centre = [GRID / 2, GRID / 2], side = 0, radius = 3, held = null;  // side: of a point that is a picture, or 0

  const groupOf = (i) => data[colour][i];
  const groups = () => [...new Set(data[colour])].sort((a, b) => a - b);
  const nameOf = (g) => (colour === "labels" ? data.names[g] : "cluster " + (g + 1));
  const labelOf = (i) => (data.labels ? data.names[data.labels[i]] : "cluster " + (data.clusters[i] + 1));
  function colourOf(g) {
    const number = groups().length;
    return number <= 8 ? OKABE[g % 8] : number <= 10 ? PETROFF[g % 10] : only === g ? OKABE[1] : "#8c8f94";
  }
  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function shape(context, kind, x, y, r) {
    context.beginPath();
    if (kind === 0) context.arc(x, y, r, 0, 7);
    else if (kind === 1) context.rect(x - r * .9, y - r * .9, r * 1.8, r * 1.8);
    else {
      const corners = kind === 2 ? [[0, -1.25], [1.15, .9], [-1.15, .9]]
        : kind === 3 ? [[0, -1.35], [1.35, 0], [0, 1.35], [-1.35, 0]] : [[0, 1.25], [1.15, -.9], [-1.15, -.9]];
      corners.forEach(([dx, dy], n) => (n ? context.lineTo(x + dx * r, y + dy * r) : context.moveTo(x + dx * r, y + dy * r)));
      context.closePath();
    }
  }
  function thumbnail(target, i, side) {
    const context = target.getContext("2d"), own = data.side;
    target.width = target.height = side;
    context.imageSmoothingEnabled = false;
    context.drawImage(sprite, (i % data.columns) * own, Math.floor(i / data.columns) * own, own, own, 0, 0, side, side);
  }
  const inside = (i) => places[i][0] > 0 && places[i][1] > 0 && places[i][0] < size[0] && places[i][1] < size[1];
  function point(i, r) {
    const g = groupOf(i);
    if (side) {
      const own = data.side, half = side / 2 * (r > 1.2 * radius ? 1.3 : 1), [x, y] = places[i];
      pen.drawImage(sprite, (i % data.columns) * own, Math.floor(i / data.columns) * own, own, own,
        x - half, y - half, 2 * half, 2 * half);
      const around = pen.strokeStyle;
      pen.lineWidth = r > 1.2 * radius ? 3 : 2;
      pen.strokeStyle = r > 1.2 * radius ? around : colourOf(g);
      pen.strokeRect(x - half, y - half, 2 * half, 2 * half);
      pen.strokeStyle = around;
      return;
    }
    shape(pen, g % 5, places[i][0], places[i][1], r);
    pen.fillStyle = colourOf(g);
    pen.fill();
    pen.stroke();
  }
  function draw() {
    const ratio = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
    size = [box.width, box.height];
    canvas.width = Math.round(box.width * ratio);
    canvas.height = Math.round(box.height * ratio);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    const wide = size[0] - 2 * EDGE, high = size[1] - 2 * EDGE;
    places = data.x.map((x, i) => [EDGE + wide * ((x - centre[0]) / GRID * zoom + .5),
      EDGE + high * (.5 - (data.y[i] - centre[1]) / GRID * zoom)]);
    const visible = places.filter((_, i) => inside(i)).length;
    side = visible * SMALLEST ** 2 > .4 * size[0] * size[1] ? 0
      : Math.min(64, Math.max(SMALLEST, Math.sqrt(.3 * size[0] * size[1] / Math.max(visible, 1))));
    radius = Math.max(2.6, Math.min(5, (Math.min(wide, high)) / 28 / Math.sqrt(count / 100)) * Math.sqrt(zoom));
    pen.imageSmoothingEnabled = side > data.side;
    pen.strokeStyle = token("--panel");
    pen.lineWidth = .8;
    for (let i = 0; i < count; i++) {
      pen.globalAlpha = only < 0 || groupOf(i) === only ? .95 : .13;
      if (inside(i)) point(i, radius);
    }
    pen.globalAlpha = 1;
    if (chosen >= 0) {
      pen.strokeStyle = token("--ink");
      for (const j of data.near[chosen]) {
        pen.lineWidth = 1;
        pen.globalAlpha = .45;
        pen.beginPath();
        pen.moveTo(...places[chosen]);
        pen.lineTo(...places[j]);
        pen.stroke();
        pen.globalAlpha = 1;
        point(j, radius * 1.25);
      }
      pen.lineWidth = 2.5;
      point(chosen, radius * 1.9);
    }
    if (under >= 0 && under !== chosen) {
      pen.strokeStyle = token("--ink");
      pen.lineWidth = 1.6;
      point(under, radius * 1.5);
    }
  }
  function look(at, to) {
    zoom = Math.min(CLOSEST, Math.max(1, to));
    centre = at.map((value) => Math.min(GRID * (1 - .5 / zoom), Math.max(GRID * .5 / zoom, value)));
    show(-1);
    draw();
    canvas.style.touchAction = zoom > 1 ? "none" : "";  // a finger moves the page, or the enlarged map
    canvas.style.cursor = zoom > 1 ? "grab" : "";
  }
  const across = (px, by = zoom) => (px - size[0] / 2) / (size[0] - 2 * EDGE) * GRID / by;
  const down = (py, by = zoom) => (size[1] / 2 - py) / (size[1] - 2 * EDGE) * GRID / by;
  function zoomBy(factor, px = size[0] / 2, py = size[1] / 2) {  // what is at that place of the canvas stays there
    const to = Math.min(CLOSEST, Math.max(1, zoom * factor));
    look([centre[0] + across(px) - across(px, to), centre[1] + down(py) - down(py, to)], to);
  }
  function zoomToChosen(factor) {
    if (chosen >= 0) look([data.x[chosen], data.y[chosen]], zoom * factor);
    else zoomBy(factor);
  }
  function nearest(x, y) {
    let best = -1, least = Math.max(REACH, side / 2) ** 2;
    places.forEach(([px, py], i) => {
      const away = (px - x) ** 2 + (py - y) ** 2;
      if (away < least && (only < 0 || groupOf(i) === only)) [best, least] = [i, away];
    });
    return best;
  }
  function show(i) {
    if (under === i) return;
    under = i;
    hover.hidden = i < 0;
    if (i >= 0) {
      thumbnail(hoverImage, i, 96);
      hoverText.textContent = [labelOf(i), data.files[i]].filter(Boolean).join(", ");
      const [x, y] = places[i];
      hover.style.left = (x > size[0] / 2 ? Math.max(0, x - 14 - hover.offsetWidth) : x + 14) + "px";
      hover.style.top = Math.max(0, Math.min(size[1] - hover.offsetHeight, y - 40)) + "px";
    }
    draw();
  }
  function element(name, text, parent) {
    const made = document.createElement(name);
    if (text) made.textContent = text;
    parent.appendChild(made);
    return made;
  }
  function choose(i) {
    chosen = i;
    chosenBox.replaceChildren();
    if (i < 0) element("p", "Nothing is chosen.", chosenBox).className = "quiet";
    else {
      const picture = element("canvas", "", chosenBox);
      picture.setAttribute("role", "img");
      picture.setAttribute("aria-label", "The chosen image");
      thumbnail(picture, i, 144);
      element("h3", labelOf(i), chosenBox);
      const more = data.labels ? ["cluster " + (data.clusters[i] + 1)] : [];
      element("p", [data.files[i], ...more].filter(Boolean).join(", "), chosenBox).className = "quiet";
      element("p", "Its nearest images:", chosenBox);
      const list = element("ol", "", chosenBox);
      data.near[i].forEach((j, n) => {
        const button = element("button", "", element("li", "", list));
        button.type = "button";
        thumbnail(element("canvas", "", button), j, 56);
        const same = data.labels && data.labels[j] === data.labels[i];
        element("span", (same ? "✓ " : "") + labelOf(j), button);
        button.title = "cosine " + data.cosines[i][n].toFixed(2) + (data.files[j] ? ", " + data.files[j] : "");
        button.addEventListener("click", () => { choose(j); canvas.focus(); });
      });
      if (!inside(i)) return look([data.x[i], data.y[i]], zoom);
    }
    draw();
  }
  function step(dx, dy) {
    const [x, y] = places[chosen];
    let best = -1, least = Infinity;
    places.forEach(([px, py], i) => {
      const along = (px - x) * dx + (py - y) * dy, across = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      if (along > .5 && along >= across * .6 && along + 2 * across < least && (only < 0 || groupOf(i) === only))
        [best, least] = [i, along + 2 * across];
    });
    if (best >= 0) choose(best);
  }
  function first() {
    for (let i = 0; i < count; i++) if (only < 0 || groupOf(i) === only) return choose(i);
  }
  function drawLegend() {
    legend.replaceChildren();
    for (const g of groups()) {
      const button = element("button", "", legend), mark = element("canvas", "", button), context = mark.getContext("2d");
      button.type = "button";
      button.setAttribute("aria-pressed", String(only === g));
      mark.width = mark.height = 14;
      shape(context, g % 5, 7, 7, 4.6);
      context.fillStyle = colourOf(g);
      context.fill();
      element("span", nameOf(g), button);
      button.addEventListener("click", () => {
        only = only === g ? -1 : g;
        [...legend.children].forEach((other, n) => other.setAttribute("aria-pressed", String(groups()[n] === only)));
        draw();
      });
    }
  }

  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => { held = { from: at(event), centre, moved: false }; });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = at(event);
    if (held && zoom > 1 && event.buttons) {
      if (!held.moved && Math.hypot(x - held.from[0], y - held.from[1]) < 5) return;
      if (!held.moved) canvas.setPointerCapture(event.pointerId);
      held.moved = true;
      look([held.centre[0] - across(x) + across(held.from[0]), held.centre[1] - down(y) + down(held.from[1])], zoom);
    } else if (event.pointerType === "mouse") show(nearest(x, y));
  });
  canvas.addEventListener("pointerleave", () => show(-1));
  canvas.addEventListener("click", (event) => {
    if (!held || !held.moved) choose(nearest(...at(event)));
    held = null;
  });
  canvas.addEventListener("dblclick", (event) => zoomBy(STEP * STEP, ...at(event)));
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;  // the wheel alone moves the page
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 200), ...at(event));
  }, { passive: false });
  document.getElementById("zoom-in").addEventListener("click", () => zoomToChosen(STEP));
  document.getElementById("zoom-out").addEventListener("click", () => zoomToChosen(1 / STEP));
  document.getElementById("zoom-all").addEventListener("click", () => look(centre, 1));
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Escape") choose(-1);
    else if (event.key === "Home" || ((event.key in steps || event.key === "Enter") && chosen < 0)) first();
    else if (event.key in steps) step(...steps[event.key]);
    else if (event.key === "+" || event.key === "=") zoomToChosen(STEP);
    else if (event.key === "-") zoomToChosen(1 / STEP);
    else if (event.key === "0") look(centre, 1);
    else return;
    event.preventDefault();
  });
  document.querySelectorAll("input[name=colour]").forEach((input) => input.addEventListener("change", () => {
    colour = input.value;
    only = -1;
    drawLegend();
    draw();
  }));
  if (!data.labels) document.querySelectorAll("input[name=colour]").forEach((input) => { input.checked = true; });
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  sprite.addEventListener("load", () => { drawLegend(); look(centre, 1); });
  sprite.src = data.sprite;
})();
