// What is not the question: how accurate it is so far, the grid, the map, the end, and the table of keys.

import { ask, inOrder } from "./label_server.js";

export const byId = (id) => document.getElementById(id);
export const percent = (share) => `${Math.round(100 * share)}\u00a0%`;

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** One span for each text that is not empty. */
export const spans = (texts) => texts.filter(Boolean).map((text) => element("span", {}, text));

// --- how accurate ----------------------------------------------------------------------------------------------------

const TINY = 1e-9; // 0.29 * 100 is a little less than 29
// outwards, so that an interval never looks narrower than it is
const ends = ([low, high]) => `${Math.floor(100 * low + TINY)} to ${Math.ceil(100 * high - TINY)}\u00a0%`;

function gain({ doubling }) {
  if (doubling === null || doubling === undefined) return "";
  const points = 100 * doubling;
  if (points < 0.5) return "twice the labels: less than 1 point more";
  return `twice the labels: about ${Math.round(points)} ${Math.round(points) === 1 ? "point" : "points"} more`;
}

function aim({ until, is_until_reached: isReached }) {
  if (!until) return "";
  return isReached ? `goal of ${percent(until)} reached` : `goal: ${percent(until)} at the lower end`;
}

export function goals(state) {
  const found = state.estimate;
  const known = found?.n
    ? [`${found.right} of ${found.n} random pictures right: ${percent(found.accuracy)} (${ends(found.interval)})`, gain(found)]
    : ["Accuracy: not known yet"];
  byId("estimate").replaceChildren(...spans([...known, aim(state)]));
  for (const name of ["accuracy", "to-done"]) byId(name).classList.toggle("reached", Boolean(state.is_until_reached));
  byId("meter").hidden = !found?.n;
  byId("goal").hidden = !state.until;
  if (!found?.n) return;
  const [low, high] = found.interval;
  byId("reach").style.left = `${100 * low}%`;
  byId("reach").style.width = `${100 * (high - low)}%`;
  byId("best").style.left = `${100 * found.accuracy}%`;
  byId("goal").style.left = `${100 * (state.until ?? 0)}%`;
}

// --- keys --------------------------------------------------------------------------------------------------------------

const KEYS = [
  ["space", "accept the suggestion"],
  ["u", "unknown: none of the classes, or not to be told"],
  ["x", "bad picture: leave it out"],
  ["backspace", "take the last answer back"],
  ["← →", "the picture answered before, the one after; answer it again to change it"],
  ["n", "new class"],
  ["g", "grid: the surest of one class, all at once"],
  ["m", "map"],
  ["h or ?", "this help"],
  ["Esc", "back to the question"],
];

export function setKeys(classes) {
  const rows = [...classes.map(({ key, name }) => [key, name]), ...KEYS].filter(([key]) => key);
  const made = rows.map(([key, what]) => element("tr", {}, element("th", { scope: "row" }, element("kbd", {}, key)), element("td", {}, what)));
  byId("keys").replaceChildren(...made);
}

// --- grid ----------------------------------------------------------------------------------------------------------------

let grid = {}; // {label} or {cluster}: what the grid shows

export async function openGrid(app, what = null) {
  const { classes } = app.state();
  if (!what && grid.cluster === undefined && classes.some(({ name }) => name === grid.label)) what = grid;
  grid = what ?? { label: classes.find(({ n }) => n)?.name ?? classes[0]?.name ?? "" };
  const isCluster = grid.cluster !== undefined;
  if (app.view() !== "grid") app.turnTo("grid");
  byId("which").hidden = isCluster;
  byId("naming").hidden = !isCluster;
  byId("grid-class").replaceChildren(...classes.map(({ name }) => element("option", { value: name }, name)));
  byId("names").replaceChildren(...classes.map(({ name }) => element("option", { value: name })));
  byId("grid-class").value = grid.label ?? "";
  byId("grid-title").textContent = isCluster ? "A group of pictures that look alike" : `The surest of ${grid.label || "one class"}`;
  byId("grid-class").onchange = () => openGrid(app, { label: byId("grid-class").value });
  byId("sure").onsubmit = (event) => (event.preventDefault(), answerGrid(app));
  byId("sure").oninput = byId("sure").onchange = countGrid;
  byId("tiles").onkeydown = walkTiles;
  await fillGrid(app);
}

async function fillGrid(app) {
  const mine = grid;
  const query = mine.cluster === undefined ? `label=${encodeURIComponent(mine.label)}` : `cluster=${encodeURIComponent(mine.cluster)}`;
  const found = await ask(`/grid?${query}`).catch((error) => (app.fail(error.message), { items: [] }));
  if (grid !== mine) return;
  byId("tiles").replaceChildren(...found.items.map(tile));
  if (!found.items.length) byId("tiles").append(element("p", { className: "empty" }, found.why || "There is no picture to show yet: label some more first."));
  byId("grid-name").value = "";
  countGrid();
}

function tile({ number, path, probability }) {
  const image = element("img", { src: `/small/${number}`, alt: `picture ${number + 1}: ${path}`, title: path });
  const box = element("input", { type: "checkbox", checked: true, value: String(number) });
  const sure = probability === null || probability === undefined ? "" : percent(probability);
  return element("label", { className: "tile" }, image, box, element("span", {}, sure));
}

const chosen = () => [...byId("tiles").querySelectorAll("input:checked")].map((box) => Number(box.value));
const gridName = () => (grid.cluster === undefined ? grid.label : byId("grid-name").value.trim());

function countGrid() {
  const [n, of] = [chosen().length, byId("tiles").querySelectorAll("input").length];
  const these = n === of ? (n === 1 ? "This one is" : `All ${n} of these are`) : n === 1 ? "The one left is" : `The ${n} left are`;
  byId("all").textContent = n ? `${these} ${gridName() || "…"}` : "None is left";
  byId("all").hidden = !of;
  byId("all").disabled = !n || !gridName();
}

async function answerGrid(app) {
  const [numbers, label, mine] = [chosen(), gridName(), grid];
  if (!numbers.length || !label || byId("all").disabled) return;
  byId("all").disabled = true;
  try {
    if (!app.state().classes.some(({ name }) => name === label)) await app.addClass(label);
    app.taken(await inOrder("/answers", { label, numbers }), numbers);
    app.say(`${numbers.length} pictures: ${label}.`);
    app.fail("");
    if (mine.cluster !== undefined) app.turnTo("question");
    else await openGrid(app, mine);
  } catch (error) {
    app.fail(`Not saved. ${error.message}`);
    countGrid();
  }
}

function walkTiles(event) {
  const boxes = [...byId("tiles").querySelectorAll("input")];
  const columns = boxes.filter((box) => box.parentElement.offsetTop === boxes[0].parentElement.offsetTop).length;
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  if (!by || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  boxes[boxes.indexOf(event.target) + by]?.focus();
}

// --- map -----------------------------------------------------------------------------------------------------------------

const SHAPES = ["M-9 0a9 9 0 1 0 18 0a9 9 0 1 0-18 0z", "M-8-8h16v16h-16z", "M0-11L10 8H-10z", "M0-11L10 0L0 11L-10 0z", "M-3.5-10h7v6.500h6.500v7h-6.500v6.500h-7v-6.500h-6.500v-7h6.500z"];
const NEAR = 40; // of 1,000: how far from a point the pointer may be
let points = [];
let at = -1;

function drawn(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Draws the sign of a class: filled where its label is known, hollow where it is supposed, small and grey otherwise. */
function sign(c, isKnown, attributes = {}) {
  const kind = c < 0 ? "none" : `c${c % 8} ${isKnown ? "known" : "supposed"}`;
  return drawn("path", { d: SHAPES[c < 0 ? 0 : c % SHAPES.length], class: kind, ...attributes });
}

export async function openMap(app) {
  app.turnTo("map");
  byId("map-note").textContent = "Making the map";
  const found = await ask("/map").catch((error) => (app.fail(error.message), { points: [], note: "" }));
  const place = new Map(app.state().classes.map(({ name }, c) => [name, c]));
  const classOf = (point) => place.get(point.label || point.supposed) ?? -1;
  points = [...found.points].sort((a, b) => Boolean(a.label) - Boolean(b.label)); // the known ones on top
  at = -1;
  byId("map-note").textContent = points.length
    ? `${found.note || "Pictures that look alike lie together."} Filled: labelled. Hollow: supposed.`
    : found.note || "There is nothing to draw yet.";
  const signs = points.map((point) => sign(classOf(point), Boolean(point.label), { transform: placed(point) }));
  byId("points").replaceChildren(...signs, drawn("circle", { id: "ring", r: 17, visibility: "hidden" }));
  drawKey(app, classOf);
  listPoints();
  listenToMap(app);
}

const [X, Y] = [({ x }) => 20 + 960 * x, ({ y }) => 20 + 960 * y];
const placed = (point) => `translate(${X(point).toFixed(1)} ${Y(point).toFixed(1)})`;

function drawKey(app, classOf) {
  const made = app.state().classes.map(({ name }, c) => {
    const of = points.filter((point) => classOf(point) === c);
    const known = of.filter(({ label }) => label).length;
    const icon = drawn("svg", { viewBox: "-12 -12 24 24", "aria-hidden": "true" });
    icon.append(sign(c, true));
    return element("li", {}, icon, element("span", {}, `${name}: ${known} labelled, ${of.length - known} supposed`));
  });
  byId("key").replaceChildren(...made);
}

const words = ({ label, supposed, probability }) =>
  label ? `labelled ${label}` : supposed ? `supposed ${supposed}${probability ? `, ${percent(probability)}` : ""}` : "nothing known yet";

function point(app, i) {
  if (i < 0 || i === at) return;
  at = i;
  const one = points[i];
  for (const [key, value] of Object.entries({ cx: X(one), cy: Y(one), visibility: "visible" })) byId("ring").setAttribute(key, value);
  const button = element("button", { type: "button" }, "Open this picture");
  button.addEventListener("click", () => app.lookAt(one.number));
  const image = element("img", { src: `/small/${one.number}`, alt: `picture ${one.number + 1}: ${one.path ?? ""}` });
  byId("point").replaceChildren(image, element("div", {}, element("p", {}, `Picture ${one.number + 1}: ${words(one)}`), button));
  app.say(`Picture ${one.number + 1}: ${words(one)}`);
}

function nearest(event) {
  const box = byId("points").getBoundingClientRect();
  const [x, y] = [(1000 * (event.clientX - box.left)) / box.width, (1000 * (event.clientY - box.top)) / box.height];
  const far = points.map((one) => Math.hypot(X(one) - x, Y(one) - y));
  const i = far.indexOf(Math.min(...far));
  return far[i] < NEAR ? i : -1;
}

/** The next point in the direction of an arrow key: near, and not far to the side. */
function towards(key) {
  const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  let [best, cost] = [-1, Infinity];
  points.forEach((one, i) => {
    const [x, y] = [X(one) - X(points[at]), Y(one) - Y(points[at])];
    const [along, aside] = [x * dx + y * dy, Math.abs(x * dy) + Math.abs(y * dx)];
    if (along > 0 && along + 2 * aside < cost) [best, cost] = [i, along + 2 * aside];
  });
  return best;
}

function listenToMap(app) {
  const svg = byId("points");
  svg.onpointermove = (event) => event.pointerType === "mouse" && point(app, nearest(event));
  svg.onclick = (event) => point(app, nearest(event));
  svg.ondblclick = () => at >= 0 && app.lookAt(points[at].number);
  svg.onkeydown = (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !points.length) return;
    if (event.key === "Enter" && at >= 0) app.lookAt(points[at].number);
    else if (event.key.startsWith("Arrow")) point(app, at < 0 ? 0 : towards(event.key));
    else return;
    event.preventDefault();
  };
}

function listPoints() {
  const cell = (name, text) => element(name, name === "th" ? { scope: "col" } : {}, text);
  byId("listed").ontoggle = () => {
    if (!byId("listed").open) return;
    const rows = points.map((one) => element("tr", {}, cell("td", String(one.number + 1)), cell("td", one.path ?? ""), cell("td", words(one))));
    const head = element("thead", {}, element("tr", {}, ...["picture", "path", "class"].map((text) => cell("th", text))));
    byId("listed").lastElementChild.replaceChildren(element("table", {}, head, element("tbody", {}, ...rows)));
  };
  byId("listed").open = false;
}

// --- the end ---------------------------------------------------------------------------------------------------------------

export async function openDone(app) {
  app.turnTo("done");
  byId("result").setAttribute("aria-busy", "true");
  byId("result").replaceChildren(element("p", { className: "empty" }, "Fitting a head, and testing it. What is not embedded yet is waited for."));
  const found = await inOrder("/done", {}).catch((error) => ({ error: error.message }));
  byId("result").setAttribute("aria-busy", "false");
  byId("result").replaceChildren(...result(found));
  app.say(byId("result").textContent);
}

function result({ error, lines = [], details = [], commands = [], accuracy, interval, confused = [] }) {
  const made = [];
  if (error) made.push(element("p", { className: "warning" }, error));
  if (accuracy !== null && accuracy !== undefined) {
    const sure = interval ? ` (95 % interval: ${ends(interval)})` : "";
    made.push(element("p", { className: "large" }, `Accuracy on the test pictures: ${percent(accuracy)}${sure}`));
  }
  if (lines.length) made.push(element("ul", {}, ...lines.map((line) => element("li", {}, line))));
  if (confused.length) made.push(element("h3", {}, "Most often confused"), confusions(confused));
  if (details.length) made.push(element("details", {}, element("summary", {}, "More about this head"), element("pre", { tabIndex: 0 }, details.join("\n"))));
  if (commands.length) made.push(element("h3", {}, "Next"), ...commands.map(command));
  return made;
}

function confusions(confused) {
  const row = (name, texts) => element("tr", {}, ...texts.map((text) => element(name, name === "th" ? { scope: "col" } : {}, String(text))));
  const table = element("table", {}, element("thead", {}, row("th", ["your label", "predicted", "pictures"])));
  table.append(element("tbody", {}, ...confused.map((pair) => row("td", pair))));
  return element("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Most often confused" }, table);
}

function command(text) {
  const shown = element("pre", { tabIndex: 0 }, text);
  const copy = element("button", { type: "button" }, "Copy");
  copy.addEventListener("click", async () => {
    getSelection().selectAllChildren(shown); // if there is no clipboard, it can be copied by hand
    copy.textContent = await navigator.clipboard.writeText(text).then(() => "Copied", () => "Selected: copy it");
  });
  return element("div", { className: "command" }, shown, copy);
}
