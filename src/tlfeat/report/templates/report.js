"use strict";
/* The page works without it; with it charts answer, cells open their pictures, and there is a map.
   Whatever comes from the data reaches the page as text (textContent, setAttribute of harmless names), never as markup. */
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const SHOWN = 60; // pictures that a panel shows at once
  const candidate = () => data.candidates[Number(byId("candidate").value)];

  function element(name, properties = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key in made) made[key] = value;
      else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }

  function drawn(name, attributes) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  const counted = (n) => `${n.toLocaleString("en")} ${n === 1 ? data.noun : `${data.noun}s`}`;
  const percent = (certainty) => `${(certainty / 10000).toFixed(1)} %`; // of millionths

  // --- pictures -------------------------------------------------------------------------------------------------

  function picture(i) {
    const size = data.pictures[i];
    if (typeof size === "string") return element("span", { className: "picture none" }, size);
    const { side, columns, rows } = data.sheets;
    const place = i % (columns * rows);
    const made = element("span", { className: `picture s${Math.floor(i / (columns * rows))}`, role: "img" });
    made.setAttribute("aria-label", data.paths[i]);
    made.style.width = `${size[0]}px`;
    made.style.height = `${size[1]}px`;
    made.style.backgroundPosition = `${-side * (place % columns)}px ${-side * Math.floor(place / columns)}px`;
    return made;
  }

  // what the chosen candidate says of image i, "" where it was not tested on it
  const testOf = new Map(data.tests.map((i, test) => [i, test]));
  function verdict(i) {
    const test = testOf.get(i);
    if (test === undefined) return data.roles[data.role[i]];
    const { name, predicted, certainty } = candidate();
    const word = predicted[test] === data.labels[i] ? "right" : "wrong";
    return `${name}: ${data.classes[predicted[test]]}, ${percent(certainty[test])} (${word})`;
  }

  const described = (i) => [
    element("div", {}, data.paths[i]),
    element("div", {}, element("strong", {}, data.classes[data.labels[i]])),
    element("div", {}, verdict(i)),
  ];

  // `look` makes of a picture what may be done with it
  const pictures = (images, look = picture) =>
    element("ul", { className: "pictures" }, ...images.map((i) => element("li", {}, look(i), ...described(i))));

  // the picture of its sheet, as large as the screen and its few pixels allow
  function large(i) {
    const size = data.pictures[i];
    const made = picture(i);
    if (typeof size === "string") return made;
    const { side, columns, rows } = data.sheets;
    const [place, first] = [i % (columns * rows), i - (i % (columns * rows))];
    const factor = Math.max(1, Math.min(4, Math.min(0.78 * innerWidth, 448) / Math.max(...size)));
    made.style.width = `${factor * size[0]}px`;
    made.style.height = `${factor * size[1]}px`;
    made.style.backgroundSize = `${factor * side * Math.min(columns, data.pictures.length - first)}px auto`;
    made.style.backgroundPosition = `${-factor * side * (place % columns)}px ${-factor * side * Math.floor(place / columns)}px`;
    return made;
  }

  // what every candidate says of image i
  function opinions(i) {
    const test = testOf.get(i);
    if (test === undefined) return element("p", { className: "note" }, `Not a test ${data.noun} that this page keeps: no candidate's answer.`);
    const cells = (name, texts) => element("tr", {}, ...texts.map((text) => element(name, name === "th" ? { scope: "col" } : {}, text)));
    const body = data.candidates.map(({ name, predicted, certainty }) => {
      const word = predicted[test] === data.labels[i] ? "right" : "wrong";
      return cells("td", [name, `${data.classes[predicted[test]]} (${word})`, percent(certainty[test])]);
    });
    const table = element("table", { className: "small" }, element("thead", {}, cells("th", ["model", "predicted", "probability"])));
    table.append(element("tbody", {}, ...body));
    return element("div", { className: "scroll" }, table);
  }

  function openImage(i) {
    const truth = element("p", {}, "True class: ", element("strong", {}, data.classes[data.labels[i]]), `, ${data.roles[data.role[i]]} ${data.noun}`);
    open(data.paths[i], element("div", { className: "looked" }, large(i), element("div", {}, truth, opinions(i))));
  }

  function enlargeable(i, shown = picture(i)) {
    const button = element("button", { type: "button", className: "look" }, shown);
    button.setAttribute("aria-label", `Show ${data.paths[i]} larger`);
    button.addEventListener("click", () => openImage(i));
    return button;
  }

  // a list that grows by a button, so that a cell of thousands opens at once
  function growing(images) {
    const body = element("div");
    let shown = 0;
    const more = element("button", { type: "button" });
    more.addEventListener("click", () => grow());
    function grow() {
      body.insertBefore(pictures(images.slice(shown, shown + SHOWN)), more);
      shown = Math.min(images.length, shown + SHOWN);
      more.hidden = shown === images.length;
      more.textContent = `Show more (${shown} of ${images.length})`;
    }
    body.append(more);
    grow();
    return body;
  }

  // --- the panel ------------------------------------------------------------------------------------------------

  const panel = byId("panel");
  function open(title, ...content) {
    hideTip();
    byId("panel-title").textContent = title;
    byId("panel-body").replaceChildren(...content);
    panel.showModal(); // the browser closes it on Escape and gives the focus back
    panel.scrollTop = 0;
  }
  byId("close").addEventListener("click", () => panel.close());
  panel.addEventListener("click", (event) => {
    if (event.target === panel) panel.close(); // beside it
  });

  // --- what is said of a thing pointed at ------------------------------------------------------------------------

  const tip = byId("tip");
  function showTip(x, y, ...content) {
    tip.replaceChildren(...content);
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const left = x + 14 + width > innerWidth ? x - 14 - width : x + 14;
    const top = y + 14 + height > innerHeight ? y - 14 - height : y + 14;
    tip.style.left = `${Math.max(4, Math.min(left, innerWidth - width - 4))}px`;
    tip.style.top = `${Math.max(4, top)}px`;
  }
  function hideTip() {
    tip.hidden = true;
  }
  // the browser would show a <title> too, late and beside ours
  for (const title of all("svg.chart title")) {
    const [mark, says] = [title.parentElement, title.textContent];
    mark.dataset.says = says;
    mark.setAttribute("aria-label", says);
    title.remove();
    mark.addEventListener("pointermove", (event) => showTip(event.clientX, event.clientY, says));
    mark.addEventListener("pointerdown", (event) => showTip(event.clientX, event.clientY, says));
    mark.addEventListener("pointerleave", hideTip);
    mark.addEventListener("focus", () => {
      if (!mark.matches(":focus-visible")) return;
      const { right, bottom } = mark.getBoundingClientRect();
      showTip(right - 14, bottom - 14, says);
    });
    mark.addEventListener("blur", hideTip);
  }
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") hideTip();
  });
  addEventListener("scroll", hideTip, { passive: true });

  // one stop of the Tab key a chart; arrows go on inside it
  for (const chart of all("svg.chart")) {
    const marks = [...chart.querySelectorAll("[data-says]")];
    marks.forEach((mark, i) => mark.setAttribute("tabindex", i ? -1 : 0));
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const next = step && marks[marks.indexOf(document.activeElement) + step];
      if (!step) return;
      event.preventDefault();
      if (!next) return;
      marks.forEach((mark) => mark.setAttribute("tabindex", mark === next ? 0 : -1));
      next.focus({ focusVisible: true });
    });
  }

  // --- confusion matrix, mistakes, reliability of one candidate ---------------------------------------------------------

  const pictured = (isShown) => {
    const { predicted, certainty } = candidate();
    return data.tests
      .map((image, test) => ({ image, test }))
      .filter(({ image, test }) => isShown(data.labels[image], predicted[test]))
      .sort((one, other) => certainty[other.test] - certainty[one.test])
      .map(({ image }) => image);
  };

  function openCell(row, column) {
    const n = candidate().confusion[row][column];
    const images = pictured((truth, predicted) => truth === row && predicted === column);
    const title =
      row === column
        ? `${n} of class ${data.classes[row]}, right by ${candidate().name}`
        : `${n} of class ${data.classes[row]} predicted as ${data.classes[column]} by ${candidate().name}`;
    const missing = n - images.length;
    const rest = missing ? [element("p", { className: "note" }, `${counted(missing)} more are not kept in this page.`)] : [];
    open(title, growing(images), ...rest);
  }

  function cellButton(n, row, column, total) {
    const isRight = row === column;
    const [truth, predicted] = [data.classes[row], data.classes[column]];
    const says = isRight ? `${n} of class ${truth}, right` : `${n} of class ${truth} predicted as ${predicted}`;
    const button = element("button", { type: "button", className: isRight ? "true" : "false", title: says }, String(n));
    button.setAttribute("aria-label", says);
    button.style.setProperty("--share", n / total);
    button.dataset.row = row;
    button.dataset.column = column;
    button.addEventListener("click", () => openCell(row, column));
    return button;
  }

  function fillMatrix() {
    const lines = byId("matrix").querySelectorAll("tbody tr");
    candidate().confusion.forEach((row, i) => {
      const total = row.reduce((sum, n) => sum + n, 0) || 1;
      row.forEach((n, j) => lines[i].cells[j + 1].replaceChildren(n ? cellButton(n, i, j, total) : "·"));
    });
  }

  // arrows go to the next cell that holds something
  byId("matrix").addEventListener("keydown", (event) => {
    const { row, column } = event.target.dataset;
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (row === undefined || !step) return;
    event.preventDefault();
    let [i, j] = [Number(row) + step[0], Number(column) + step[1]];
    const n = data.classes.length;
    for (; i >= 0 && j >= 0 && i < n && j < n; i += step[0], j += step[1]) {
      const next = byId("matrix").querySelector(`button[data-row="${i}"][data-column="${j}"]`);
      if (next) return next.focus();
    }
  });

  for (const item of all("#pairs [data-row]")) {
    const button = element("button", { type: "button" }, item.textContent);
    button.addEventListener("click", () => openCell(Number(item.dataset.row), Number(item.dataset.column)));
    item.replaceChildren(button);
  }

  function showCandidate() {
    fillMatrix();
    const wrong = pictured((truth, predicted) => truth !== predicted);
    byId("wrong").replaceChildren(wrong.length ? pictures(wrong.slice(0, 24), enlargeable) : element("p", {}, "None."));
    for (const detail of all(".detail")) detail.hidden = detail.dataset.candidate !== byId("candidate").value;
    for (const name of all(".whose")) name.textContent = candidate().name;
  }

  // --- the map ----------------------------------------------------------------------------------------------------

  const LOOKS = {
    class: (i) => {
      const [colour, shape] = data.looks[data.labels[i]];
      return { name: data.classes[data.labels[i]], colour, shape };
    },
    domain: (i) => {
      const [colour, shape] = data.looks[data.domain[i]];
      return { name: data.domains[data.domain[i]], colour, shape };
    },
    split: (i) => [
      { name: data.roles[0], colour: "c4", shape: 0, faint: true },
      { name: data.roles[1], colour: "c5", shape: 2 },
      { name: data.roles[2], colour: "c0", shape: 1 },
    ][data.role[i]],
    mistake: (i) => {
      const test = testOf.get(i);
      if (test === undefined) return { name: "not tested", colour: "c4", shape: 0, faint: true };
      const isRight = candidate().predicted[test] === data.labels[i];
      return isRight ? { name: "right", colour: "c0", shape: 1 } : { name: "wrong", colour: "c1", shape: 6, last: true };
    },
  };

  const map = byId("map");
  const WHOLE = { x: -40, y: -40, size: 1080 };
  const MOST = 40; // times
  let view = WHOLE;
  let marked = []; // what draws image i
  let places = []; // [x, y] of image i of the map
  let alone = ""; // the name in the key that is shown alone
  let current = -1;
  const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

  function showMap() {
    const points = data.maps.find(({ kind }) => kind === chosen("kind")).points;
    places = Array.from({ length: points.length / 2 }, (_, i) => [points[2 * i], 1000 - points[2 * i + 1]]);
    const look = LOOKS[chosen("colour")];
    const names = new Map();
    const marks = places.map((_, i) => {
      const { name, colour, shape, faint, last } = look(i);
      if (!names.has(name)) names.set(name, { colour, shape, n: 0 });
      names.get(name).n += 1;
      const mark = drawn("path", { d: data.shapes[shape], fill: `var(--${colour})` });
      if (alone ? alone !== name : faint) mark.setAttribute("class", alone ? "dim" : "faint");
      return [mark, last || alone === name];
    });
    marked = marks.map(([mark]) => mark);
    // what matters most is drawn last
    byId("points").replaceChildren(...[false, true].flatMap((top) => marks.filter((m) => Boolean(m[1]) === top).map((m) => m[0])));
    const order = [...names].sort((one, other) => one[0].localeCompare(other[0], "en", { numeric: true }));
    byId("key").replaceChildren(...order.map(([name, { colour, shape, n }]) => key(name, colour, shape, n)));
    point(-1);
    show(view);
  }

  // signs keep their size on the screen, so that zooming parts them
  function show({ x, y, size }) {
    const inside = (start) => Math.max(WHOLE.x, Math.min(start, WHOLE.x + WHOLE.size - size));
    view = { x: inside(x), y: inside(y), size };
    map.setAttribute("viewBox", `${view.x} ${view.y} ${size} ${size}`);
    const scale = size / WHOLE.size;
    marked.forEach((mark, i) => mark.setAttribute("transform", `translate(${places[i]}) scale(${scale})`));
    byId("ring").setAttribute("r", 14 * scale);
    map.classList.toggle("zoomed", isZoomed());
    byId("zoom-out").disabled = byId("zoom-all").disabled = !isZoomed();
    byId("zoom-in").disabled = size <= WHOLE.size / MOST;
  }

  const isZoomed = () => view.size < WHOLE.size;
  const middle = () => [view.x + view.size / 2, view.y + view.size / 2];

  // the place `at` stays where it is on the screen
  function zoom(factor, at = middle()) {
    const size = Math.max(WHOLE.size / MOST, Math.min(WHOLE.size, view.size / factor));
    const kept = size / view.size;
    show({ x: at[0] - (at[0] - view.x) * kept, y: at[1] - (at[1] - view.y) * kept, size });
  }

  function move(dx, dy) {
    show({ x: view.x - dx, y: view.y - dy, size: view.size });
  }

  function bringIntoView([x, y]) {
    const edge = view.size / 20;
    const isSeen = (at, start) => at >= start + edge && at <= start + view.size - edge;
    if (!isSeen(x, view.x) || !isSeen(y, view.y)) show({ x: x - view.size / 2, y: y - view.size / 2, size: view.size });
  }

  function key(name, colour, shape, n) {
    const sign = drawn("svg", { viewBox: "-9 -9 18 18", "aria-hidden": "true" });
    sign.append(drawn("path", { d: data.shapes[shape], fill: `var(--${colour})` }));
    const button = element("button", { type: "button" }, sign, `${name} (${n.toLocaleString("en")})`);
    button.setAttribute("aria-pressed", String(alone === name));
    button.addEventListener("click", () => {
      const place = [...byId("key").children].indexOf(button.parentElement);
      alone = alone === name ? "" : name;
      showMap();
      byId("key").children[place].firstElementChild.focus();
    });
    return element("li", {}, button);
  }

  function point(i) {
    current = i;
    const ring = byId("ring");
    if (i < 0) return ring.setAttribute("hidden", "");
    ring.removeAttribute("hidden");
    ring.setAttribute("cx", places[i][0]);
    ring.setAttribute("cy", places[i][1]);
  }

  function toMap(event) {
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(map.getScreenCTM().inverse());
    return [x, y];
  }

  const isShown = (i) => !alone || LOOKS[chosen("colour")](i).name === alone;
  function nearest([x, y], reach) {
    let [best, least] = [-1, reach * reach];
    places.forEach(([px, py], i) => {
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance <= least && isShown(i)) [best, least] = [i, distance];
    });
    return best;
  }

  function tell(i, x, y) {
    point(i);
    if (i < 0) return hideTip();
    showTip(x, y, picture(i), ...described(i));
  }

  if (map && data.maps.length) {
    // as far as a finger is wide, whatever the size of the map
    const reach = () => 16 / (map.getScreenCTM().a || 1);
    const fingers = new Map(); // where each pointer that is down was last
    let hasMoved = false; // since the first of them came down: then a click is none
    let opening = 0;
    const gap = ([one, other]) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    map.addEventListener("pointerdown", (event) => {
      if (!fingers.size) hasMoved = false;
      fingers.set(event.pointerId, { from: event, last: event });
    });
    map.addEventListener("pointermove", (event) => {
      const finger = fingers.get(event.pointerId);
      if (!finger) return tell(nearest(toMap(event), reach()), event.clientX, event.clientY);
      const before = [...fingers.values()].map(({ last }) => last);
      const [x, y] = toMap(finger.last);
      finger.last = event;
      if (fingers.size === 2) {
        const after = [...fingers.values()].map(({ last }) => last);
        const [clientX, clientY] = [(after[0].clientX + after[1].clientX) / 2, (after[0].clientY + after[1].clientY) / 2];
        zoom(gap(after) / (gap(before) || 1), toMap({ clientX, clientY }));
      }
      if (fingers.size === 2 || gap([finger.from, event]) > 5) hasMoved = true;
      if (!hasMoved || !isZoomed()) return;
      hideTip();
      if (!map.hasPointerCapture(event.pointerId)) map.setPointerCapture(event.pointerId);
      const [newX, newY] = toMap(event);
      if (fingers.size === 1) move(newX - x, newY - y);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      map.addEventListener(name, (event) => fingers.delete(event.pointerId));
    }
    map.addEventListener("pointerleave", (event) => {
      if (!map.hasPointerCapture(event.pointerId)) fingers.delete(event.pointerId);
      tell(-1);
    });
    map.addEventListener("blur", () => tell(-1));
    map.addEventListener("click", (event) => {
      if (hasMoved && isZoomed()) return;
      const i = nearest(toMap(event), reach());
      clearTimeout(opening);
      if (i < 0) return;
      if (!isZoomed()) return openImage(i);
      opening = setTimeout(() => openImage(i), 250); // unless it becomes a double click
    });
    map.addEventListener("dblclick", () => {
      clearTimeout(opening);
      show(WHOLE);
    });
    map.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey) return; // the page scrolls
        event.preventDefault();
        hideTip();
        zoom(2 ** (-event.deltaY / 200), toMap(event));
      },
      { passive: false },
    );
    byId("zoom-in").addEventListener("click", () => zoom(1.6));
    byId("zoom-out").addEventListener("click", () => zoom(1 / 1.6));
    byId("zoom-all").addEventListener("click", () => show(WHOLE));
    map.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && current >= 0) return openImage(current);
      const factor = { "+": 1.6, "=": 1.6, "-": 1 / 1.6 }[event.key];
      if (factor && !event.ctrlKey && !event.metaKey) {
        event.preventDefault();
        hideTip();
        return zoom(factor, current < 0 ? middle() : places[current]);
      }
      const direction = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
      if (!direction) return;
      event.preventDefault();
      const next = current < 0 ? nearest(middle(), Infinity) : beyond(current, direction);
      if (next < 0) return;
      bringIntoView(places[next]);
      const at = new DOMPoint(...places[next]).matrixTransform(map.getScreenCTM());
      tell(next, at.x, at.y);
      byId("said").textContent = `${data.paths[next]}, ${data.classes[data.labels[next]]}, ${verdict(next)}`;
    });
    for (const input of all('input[name="kind"]')) input.addEventListener("change", showMap);
    for (const input of all('input[name="colour"]')) {
      input.addEventListener("change", () => {
        alone = "";
        showMap();
      });
    }
  }

  // the nearest one that lies more along the direction than across it
  function beyond(from, [dx, dy]) {
    const [x, y] = places[from];
    let [best, least] = [-1, Infinity];
    places.forEach(([px, py], i) => {
      const along = (px - x) * dx + (py - y) * dy;
      const across = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      if (along > 0 && across <= along && along + across < least && isShown(i)) [best, least] = [i, along + across];
    });
    return best;
  }

  // --- all together -------------------------------------------------------------------------------------------------

  for (const item of all("#first li")) {
    const shown = item.firstElementChild;
    const mark = document.createComment("");
    shown.replaceWith(mark);
    mark.replaceWith(enlargeable(Number(item.dataset.image), shown));
  }
  for (const part of all(".scripted")) part.hidden = false;
  for (const input of all('input[name="cost"]')) {
    input.addEventListener("change", () => all(".cost").forEach((part, i) => (part.hidden = String(i) !== chosen("cost"))));
  }
  byId("candidate").addEventListener("change", () => {
    showCandidate();
    if (map && data.maps.length) showMap();
    byId("said").textContent = `Now of ${candidate().name}`;
  });
  showCandidate();
  if (map && data.maps.length) showMap();
})();
