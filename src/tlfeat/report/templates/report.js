"use strict";
/* The page works without it; with it charts answer, cells open their pictures, and there is a map.
   Whatever comes from the data reaches the page as text (textContent, setAttribute of harmless names), never as markup. */
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const MANY = 12; // classes beyond which headings stand upright
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

  const counted = (n) => `${n.toLocaleString("en")} ${n === 1 ? "image" : "images"}`;
  const percent = (certainty) => `${(certainty / 100).toFixed(1)} %`;

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

  const pictures = (images) =>
    element("ul", { className: "pictures" }, ...images.map((i) => element("li", {}, picture(i), ...described(i))));

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
  for (const mark of all("[data-says]")) {
    const says = mark.dataset.says;
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
  for (const plot of all("svg.plot")) {
    const marks = [...plot.querySelectorAll("[data-says]")];
    marks.forEach((mark, i) => mark.setAttribute("tabindex", i ? -1 : 0));
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const next = step && marks[marks.indexOf(document.activeElement) + step];
      if (!step) return;
      event.preventDefault();
      if (!next) return;
      marks.forEach((mark) => mark.setAttribute("tabindex", mark === next ? 0 : -1));
      next.focus({ focusVisible: true });
    });
  }

  // --- confusions, mistakes, reliability of one candidate ---------------------------------------------------------

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
        ? `${n} of class ${data.classes[row]}, rightly named by ${candidate().name}`
        : `${n} of class ${data.classes[row]} taken for ${data.classes[column]} by ${candidate().name}`;
    const missing = n - images.length;
    const rest = missing ? [element("p", { className: "note" }, `${counted(missing)} more are not kept in this page.`)] : [];
    open(title, growing(images), ...rest);
  }

  function matrix() {
    const { confusion, name } = candidate();
    const isLong = data.classes.length > MANY;
    const head = element("tr", {}, element("th", { scope: "col" }, "true \\ predicted"));
    for (const title of data.classes) head.append(element("th", { scope: "col", title }, title));
    const body = element("tbody");
    confusion.forEach((row, i) => {
      const total = row.reduce((sum, n) => sum + n, 0) || 1;
      const line = element("tr", {}, element("th", { scope: "row", title: data.classes[i] }, data.classes[i]));
      row.forEach((n, j) => {
        const cell = element("td");
        if (n) {
          const button = element("button", { type: "button", className: i === j ? "true" : "false" }, String(n));
          const words = i === j ? `${n} of class ${data.classes[i]}, right` : `${n} of class ${data.classes[i]} taken for ${data.classes[j]}`;
          button.setAttribute("aria-label", words);
          button.title = words;
          button.style.setProperty("--share", n / total);
          button.dataset.row = i;
          button.dataset.column = j;
          button.addEventListener("click", () => openCell(i, j));
          cell.append(button);
        } else cell.append(element("span", { className: "note" }, "·"));
        line.append(cell);
      });
      body.append(line);
    });
    const caption = element("caption", {}, `${name}: a line a true class, a column a predicted one`);
    return element("table", { className: isLong ? "matrix many" : "matrix" }, caption, element("thead", {}, head), body);
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

  function pairs() {
    const found = [];
    candidate().confusion.forEach((row, i) => row.forEach((n, j) => i !== j && n && found.push([n, i, j])));
    found.sort((one, other) => other[0] - one[0]);
    const items = found.slice(0, 5).map(([n, i, j]) => {
      const button = element("button", { type: "button" }, `${n} of class ${data.classes[i]} taken for ${data.classes[j]}`);
      button.addEventListener("click", () => openCell(i, j));
      return element("li", {}, button);
    });
    return items.length ? element("ul", { className: "plain" }, ...items) : element("p", {}, "Nothing is confused.");
  }

  function showCandidate() {
    byId("matrix").replaceChildren(matrix());
    byId("pairs").replaceChildren(pairs());
    const wrong = pictured((truth, predicted) => truth !== predicted);
    byId("wrong").replaceChildren(wrong.length ? pictures(wrong.slice(0, 24)) : element("p", {}, "None."));
    byId("mistakes").textContent = `Most certain mistakes of ${candidate().name}`;
    for (const detail of all(".detail")) detail.hidden = detail.dataset.candidate !== byId("candidate").value;
    if (byId("whose")) byId("whose").textContent = candidate().name;
  }

  // --- the map ----------------------------------------------------------------------------------------------------

  const SHAPES = [
    "M-7 0a7 7 0 1 0 14 0a7 7 0 1 0-14 0z", // circle
    "M-6.2-6.2h12.4v12.4h-12.4z", // square
    "M0-8l7.5 13h-15z", // triangle
    "M0-8.8l7 8.8l-7 8.8l-7-8.8z", // diamond
    "M-2.4-7.5h4.8v5.1h5.1v4.8h-5.1v5.1h-4.8v-5.1h-5.1v-4.8h5.1z", // plus
    "M0 8l7.5-13h-15z", // triangle upside down
    "M-7-3.6L-3.6-7L0-3.4L3.6-7L7-3.6L3.4 0L7 3.6L3.6 7L0 3.4L-3.6 7L-7 3.6L-3.4 0z", // cross
    "M0-8.5L2.4-2.8L8.2-2.6L3.7 1.1L5.2 7L0 3.7L-5.2 7L-3.7 1.1L-8.2-2.6L-2.4-2.8z", // star
  ];
  const classLook = (c) => ({ name: data.classes[c], colour: c % 8, shape: (c + Math.floor(c / 8)) % 8 });
  const LOOKS = {
    class: (i) => classLook(data.labels[i]),
    split: (i) => [
      { name: "learned from", colour: 4, shape: 0, faint: true },
      { name: "validation", colour: 5, shape: 2 },
      { name: "test", colour: 0, shape: 1 },
    ][data.role[i]],
    mistake: (i) => {
      const test = testOf.get(i);
      if (test === undefined) return { name: "not tested", colour: 4, shape: 0, faint: true };
      const isRight = candidate().predicted[test] === data.labels[i];
      return isRight ? { name: "right", colour: 0, shape: 1 } : { name: "wrong", colour: 1, shape: 6, last: true };
    },
  };

  const map = byId("map");
  let places = []; // [x, y] of image i of the map
  let alone = ""; // the name in the key that is shown alone
  let current = -1;
  const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

  function showMap() {
    const points = data.maps.find(({ kind }) => kind === chosen("kind")).points;
    places = Array.from({ length: points.length / 2 }, (_, i) => [points[2 * i], 1000 - points[2 * i + 1]]);
    const look = LOOKS[chosen("colour")];
    const names = new Map();
    const marks = places.map(([x, y], i) => {
      const { name, colour, shape, faint, last } = look(i);
      if (!names.has(name)) names.set(name, { colour, shape, n: 0 });
      names.get(name).n += 1;
      const mark = drawn("path", { d: SHAPES[shape], transform: `translate(${x} ${y})`, fill: `var(--c${colour})` });
      if (alone ? alone !== name : faint) mark.setAttribute("class", alone ? "dim" : "faint");
      return [mark, last || alone === name];
    });
    // what matters most is drawn last
    byId("points").replaceChildren(...[false, true].flatMap((top) => marks.filter((m) => Boolean(m[1]) === top).map((m) => m[0])));
    const order = [...names].sort((one, other) => one[0].localeCompare(other[0], "en", { numeric: true }));
    byId("key").replaceChildren(...order.map(([name, { colour, shape, n }]) => key(name, colour, shape, n)));
    point(-1);
  }

  function key(name, colour, shape, n) {
    const sign = drawn("svg", { viewBox: "-9 -9 18 18", "aria-hidden": "true" });
    sign.append(drawn("path", { d: SHAPES[shape], fill: `var(--c${colour})` }));
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

  const openImage = (i) => open(data.paths[i], pictures([i]));

  if (map && data.maps.length) {
    // as far as a finger is wide, whatever the size of the map
    const reach = () => 16 / (map.getScreenCTM().a || 1);
    map.addEventListener("pointermove", (event) => tell(nearest(toMap(event), reach()), event.clientX, event.clientY));
    map.addEventListener("pointerleave", () => tell(-1));
    map.addEventListener("blur", () => tell(-1));
    map.addEventListener("click", (event) => {
      const i = nearest(toMap(event), reach());
      if (i >= 0) openImage(i);
    });
    map.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && current >= 0) return openImage(current);
      const direction = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
      if (!direction) return;
      event.preventDefault();
      const next = current < 0 ? nearest([500, 500], Infinity) : beyond(current, direction);
      if (next < 0) return;
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
