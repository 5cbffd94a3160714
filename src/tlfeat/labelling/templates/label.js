// The page of `tlfeat label`: one question at a time, answered by key, mouse or touch.
// What comes from the program reaches the page as text (textContent and attributes that run nothing), never as markup.

import { Dropped, Gone, ask, inOrder, link, settled, stayAlive, whyUnreadable } from "./label_server.js";
import { byId, element, goals, openDone, openGrid, openMap, percent, setKeys, spans } from "./label_views.js";

const WHY = {
  random: "drawn at random, to measure the accuracy",
  typical: "typical of many others",
  unsure: "the head is not sure of it",
  grid: "from the grid",
  any: "",
  folder: "its label is the name of its folder",
};
const POLL_MS = 2000;

let state = null;
let shown = null; // the card on the screen; null while one is awaited
let waiting = null; // the card that was answered, whose successor is awaited
let ahead = null; // the card that comes after the one that is open, its picture already here
let open = null; // the card that waits while an earlier one is looked at
let isMoving = false; // to a picture that was answered before: keys wait
let said = ""; // what the last answer was, for those who listen
const answered = []; // numbers of pictures, the last answer last

// --- the state: what stands at the top, and the buttons of the classes ----------------------------------------------

const many = (n) => n.toLocaleString("en");
const called = ({ number, path }) => `picture ${number + 1}: ${path}`; // people count from one

function counted() {
  const { mode, n_labelled, n_pictures, n_unknown, n_bad, n_skipped, n_left, extracting } = state;
  const rest = n_left === null || n_left === undefined ? "" : `, ${many(n_left)} left`;
  const done = { label: `of ${many(n_pictures)} labelled`, fix: `labelled${rest}`, review: `answered${rest}` };
  const head = `${many(n_labelled)} ${done[mode]}`; // with --fix every picture has had a label before
  const parts = [[n_unknown, "unknown"], [n_bad, "bad"], [n_skipped, "unreadable"]].filter(([n]) => n);
  return [head, ...parts.map(([n, word]) => `${many(n)} ${word}`), extracting];
}

function apply(fresh) {
  if (!fresh) return;
  const names = (one) => JSON.stringify(one?.classes.map(({ name, key }) => [name, key]));
  const isSame = names(state) === names(fresh), before = state;
  state = fresh;
  document.title = `(${state.n_labelled}) ${state.folder}: tlfeat label`;
  document.querySelector("h1").textContent = state.folder;
  byId("count").replaceChildren(...spans(counted()));
  goals(state);
  if (!isSame) drawClasses();
  for (const button of byId("classes").children) {
    const { n } = state.classes.find(({ name }) => name === button.value);
    button.querySelector(".n").textContent = `${many(n)} labelled`;
  }
  drawUndo();
  if (state.extraction_error && state.extraction_error !== before?.extraction_error)
    fail(`The pictures are not embedded, so nothing is suggested. ${state.extraction_error} Labels are kept all the same.`);
  byId("notes").hidden = !state.notes.length;
  byId("notes").firstChild.textContent = state.notes.length === 1 ? "1 note" : `${state.notes.length} notes`;
  byId("notes").lastChild.replaceChildren(...state.notes.map((text) => element("li", {}, text)));
}

const drawUndo = () => (byId("undo").disabled = !state.can_undo && !link.nUnsaved);

function drawClasses() {
  const made = state.classes.map(({ name, key }, c) => {
    const button = element("button", { type: "button", value: name, className: `class c${c % 8}` });
    button.append(element("kbd", {}, key), element("span", { className: "name" }, name, element("span", { className: "n" })), element("span", { className: "p" }), element("i", {}));
    button.addEventListener("click", () => give("label", name));
    return button;
  });
  byId("classes").replaceChildren(...made);
  setKeys(state.classes);
  if (shown) drawSuggestion(shown.question);
  if (!made.length) askForNames("Which classes are there? Type a name, Enter adds it.");
}

function fail(text, again = null) {
  byId("alert").hidden = !text;
  byId("alert-text").textContent = text;
  byId("again").hidden = !again;
  byId("again").onclick = again;
}

function sayLink() {
  const waits = link.nUnsaved === 1 ? " One answer waits to be saved." : link.nUnsaved ? ` ${link.nUnsaved} answers wait to be saved.` : "";
  fail(link.isLost ? `The program has ended, or does not answer. Run the same command again: nothing is lost.${waits} Trying again.` : "");
}

link.onRefused = (text) => fail(text);
link.onChange = (isLost) => {
  sayLink();
  if (!isLost && state) refresh();
};

async function refresh() {
  apply(await ask("/state").catch(() => null));
  if (!shown && !waiting && !isMoving) await current();
}

// the program answers with a question alone, or with {"question": ...}
const questionOf = (found) => found.question ?? (found.id === undefined ? null : found);

// --- a question: its picture is on the screen before it can be answered ----------------------------------------------

function cardOf(question) {
  const image = new Image();
  image.alt = called(question);
  image.src = `/picture/${question.number}`;
  const card = { question, node: image, isSeen: false, isEarlier: false };
  card.ready = image.decode().then(
    () => (image.style.maxWidth = `${6 * image.naturalWidth}px`), // tiny pictures are not blown up without end
    async () => (card.node = element("div", { className: "empty" }, await whyUnreadable(image.src))),
  );
  return card;
}

async function show(card) {
  shown = card;
  waiting = null;
  byId("frame").setAttribute("aria-busy", "true");
  await card.ready;
  if (shown !== card) return;
  byId("frame").setAttribute("aria-busy", "false");
  card.node.id = "picture";
  byId("picture").replaceWith(card.node);
  drawQuestion(card.question);
  card.isSeen = true;
  if (!card.isEarlier) lookAhead(card);
}

async function lookAhead(card) {
  if (ahead?.after === card) return;
  ahead = null;
  await settled();
  if (shown !== card && waiting !== card && open !== card) return;
  const question = questionOf(await ask(`/question?after=${card.question.id}`).catch(() => ({})));
  if (!question) return;
  const next = cardOf(question);
  next.after = card;
  if (waiting === card) show(next);
  else if (shown === card || open === card) ahead = next;
}

function take(question) {
  if (question) show(cardOf(question));
  else current();
}

async function current() {
  const found = await ask("/question").catch((error) => ({ why: error.message }));
  if (shown) return;
  const question = questionOf(found);
  if (question) return show(cardOf(question));
  byId("picture").replaceWith(element("div", { id: "picture", className: "empty" }, found.why || "There is no further picture."));
  byId("frame").setAttribute("aria-busy", "false");
  for (const name of ["number", "path"]) byId(name).textContent = "";
  for (const name of ["others", "text", "choices"]) byId(name).hidden = true;
  waiting = null;
  drawSuggestion(null);
}

function drawQuestion(question) {
  const { number, path, why, text, label, choices } = question;
  const now = label ? `so far: ${label}` : "";
  byId("number").textContent = [`Picture ${many(number + 1)}`, now, WHY[why] ?? why].filter(Boolean).join(" · ");
  byId("path").textContent = path;
  byId("text").hidden = !text;
  byId("text").textContent = text;
  drawOthers(question.others ?? []);
  byId("choices").hidden = !choices?.length;
  const focused = [...byId("choices").children].indexOf(document.activeElement);
  byId("choices").replaceChildren(...(choices ?? []).map(choiceButton));
  byId("choices").children[focused]?.focus();
  drawSuggestion(question);
  byId("earlier").disabled = !answered.length;
  byId("later").disabled = !shown.isEarlier;
  const suggested = question.suggestion ? `Suggested: ${question.suggestion}, ${percent(question.probability)}.` : "";
  byId("said").textContent = [said, `${called(question)}.`, now, text, suggested].filter(Boolean).join(" ");
  said = "";
}

function choiceButton(choice) {
  const button = element("button", { type: "button", className: "class" }, element("kbd", {}, choice.key), element("span", { className: "name" }, choice.name));
  button.addEventListener("click", () => choose(choice));
  return button;
}

function drawOthers(others) {
  const size = others.length > 2 ? "small" : "picture";
  const made = others.map(({ number, path, caption }) => {
    const image = element("img", { src: `/${size}/${number}`, alt: called({ number, path }) });
    return element("li", {}, image, element("span", {}, caption || path));
  });
  byId("others").hidden = !others.length;
  byId("others").parentElement.classList.toggle("pair", others.length > 0 && others.length < 3);
  byId("others").style.setProperty("--n", made.length);
  byId("others").replaceChildren(...made);
}

function drawSuggestion(question) {
  const accept = byId("accept");
  const { suggestion, probability, top } = question ?? {};
  const sure = probability === null || probability === undefined ? "" : `, ${percent(probability)}`;
  accept.disabled = !suggestion;
  accept.hidden = !suggestion && Boolean(question?.choices?.length);
  const without = question?.why === "random" ? "No suggestion: this one measures" : "No suggestion yet";
  accept.replaceChildren(...(suggestion ? [element("span", {}, `Suggestion: ${suggestion}${sure}`), element("kbd", {}, "space")] : [without]));
  const likely = new Map(top ?? []);
  for (const button of byId("classes").children) {
    const share = likely.get(button.value) ?? 0;
    button.querySelector(".p").textContent = share >= 0.005 ? percent(share) : "";
    button.querySelector("i").style.width = `${100 * share}%`;
    button.classList.toggle("suggested", button.value === suggestion);
  }
}

// --- answers -----------------------------------------------------------------------------------------------------------

const isReady = () => Boolean(shown?.isSeen) && !isMoving;

function give(kind, label = "", more = {}) {
  if (!isReady()) return;
  const card = shown;
  const { id, number, suggestion } = card.question;
  post(card, { id, number, kind, label, was_suggested: kind === "label" && label === suggestion, ...more });
}

function post(card, answer) {
  const next = card.isEarlier ? open : ahead?.after === card ? ahead : null;
  remember(answer);
  shown = null;
  open = null;
  waiting = card;
  if (next) show(next);
  else byId("frame").setAttribute("aria-busy", "true");
  inOrder("/answer", answer).then(
    (reply) => {
      apply(reply.state);
      if (!shown && waiting === card) take(reply.question);
    },
    (error) => refused(error, card, answer),
  );
  sayLink();
  drawUndo();
}

function refused(error, card, answer) {
  forget(answer.number);
  drawUndo();
  if (error instanceof Dropped) return;
  ahead = open = waiting = null;
  byId("last").textContent = "";
  if (error.status === 409) {
    fail(error.message);
    shown = null;
    current();
    return;
  }
  fail(`Not saved: picture ${answer.number + 1}, ${worded(answer)}. ${error.message}`, () => shown === card && isReady() && post(card, answer));
  show(card);
}

const worded = ({ kind, label }) => label || kind;

function remember(answer) {
  forget(answer.number);
  answered.push(answer.number);
  said = `Picture ${answer.number + 1}: ${worded(answer)}.`;
  byId("last").textContent = `Last: picture ${many(answer.number + 1)}, ${worded(answer)}`;
}

function forget(number) {
  const at = answered.lastIndexOf(number);
  if (at >= 0) answered.splice(at, 1);
}

async function undo() {
  if (isMoving || byId("undo").disabled) return;
  const before = shown;
  isMoving = true;
  shown = waiting = ahead = open = null;
  byId("frame").setAttribute("aria-busy", "true");
  try {
    const { state: fresh, question } = await inOrder("/undo", {}, { isRepeated: false });
    if (question) forget(question.number);
    said = "Taken back.";
    byId("last").textContent = "The last answer is taken back";
    fail("");
    apply(fresh);
    isMoving = false;
    if (view() === "grid") openGrid(app);
    take(question);
  } catch (error) {
    isMoving = false;
    if (!(error instanceof Gone)) fail(`Nothing was taken back. ${error.message}`);
    if (before) show(before);
    else current();
  }
}

function choose(choice) {
  if (choice.kind === "cluster") openGrid(app, { cluster: choice.cluster });
  else give(choice.kind, choice.label ?? "", { choice: choice.key });
}

// --- pictures that were answered before --------------------------------------------------------------------------------

function step(by) {
  if (!isReady()) return;
  const place = shown.isEarlier ? answered.lastIndexOf(shown.question.number) : -1;
  const to = (place < 0 ? answered.length : place) + by;
  if (to >= 0 && to < answered.length) lookAt(answered[to]);
  else if (to > 0) toOpen();
}

function toOpen() {
  if (!shown?.isEarlier) return;
  const card = open;
  shown = open = null;
  if (card) show(card);
  else current();
}

async function lookAt(number) {
  if (!shown?.isEarlier) open = shown;
  shown = null;
  isMoving = true;
  byId("frame").setAttribute("aria-busy", "true");
  await settled();
  try {
    const card = cardOf(questionOf(await ask(`/question?number=${number}`)));
    card.isEarlier = true;
    isMoving = false;
    show(card);
  } catch (error) {
    isMoving = false;
    fail(error.message);
    const card = open;
    open = null;
    if (card) show(card);
    else current();
  }
}

// --- names of classes ----------------------------------------------------------------------------------------------------

let isOne = false; // one name, then back to the pictures; otherwise names until none is given

function askForNames(words = "") {
  if (!byId("new-class").hidden && !words) return byId("name").focus();
  isOne = !words;
  byId("name-label").textContent = words || "New class: type its name, Enter adds it";
  byId("close-name").textContent = isOne ? "Cancel" : "Start";
  if (byId("new-class").hidden) {
    byId("new-class").hidden = false;
    byId("name").focus();
  }
}

function closeNames() {
  byId("new-class").hidden = true;
  byId("name").value = "";
  byId("classes").focus({ preventScroll: true });
}

async function addName() {
  const name = byId("name").value.trim();
  if (!name) return closeNames();
  try {
    const fresh = await inOrder("/class", { name });
    byId("name").value = "";
    fail("");
    apply(fresh.state ?? fresh);
    byId("said").textContent = `${name} is a class now.`;
    if (isOne) closeNames();
  } catch (error) {
    fail(`${name} was not added. ${error.message}`);
    byId("name").focus();
  }
}

// --- views and keys --------------------------------------------------------------------------------------------------------

const view = () => document.body.dataset.view;

function turnTo(name) {
  document.body.dataset.view = name;
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== name;
  for (const other of ["grid", "map"]) byId(`to-${other}`).setAttribute("aria-pressed", String(name === other));
  if (name === "question") byId("frame").focus({ preventScroll: true });
  else byId(`${name}-title`).focus();
}

// what the other views need of this one
const app = {
  state: () => state,
  turnTo,
  view,
  fail,
  say: (text) => (byId("said").textContent = text),
  lookAt: (number) => (turnTo("question"), lookAt(number)),
  taken: ({ state: fresh, question }, numbers) => {
    for (const number of numbers) forget(number), answered.push(number);
    apply(fresh);
    shown = waiting = ahead = open = null;
    take(question);
  },
  addClass: async (name) => {
    const fresh = await inOrder("/class", { name });
    apply(fresh.state ?? fresh);
  },
};

const toggled = (name, opener) => (view() === name ? turnTo("question") : opener(app));
const toHelp = () => (byId("help").open ? byId("help").close() : byId("help").showModal());
const ALWAYS = {
  g: () => toggled("grid", openGrid),
  m: () => toggled("map", openMap),
  h: toHelp,
  "?": toHelp,
  Escape: () => (view() === "question" ? toOpen() : turnTo("question")),
  Backspace: undo,
};
const ON_QUESTION = {
  " ": () => shown?.question.suggestion && give("label", shown.question.suggestion),
  u: () => give("unknown"),
  x: () => give("bad"),
  n: () => askForNames(),
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
};

function actionOf(key) {
  const named = state.classes.find((one) => one.key === key)?.name;
  if (view() === "question") {
    const choice = shown?.question.choices?.find((one) => one.key === key);
    if (choice) return () => choose(choice);
    if (ON_QUESTION[key]) return ON_QUESTION[key];
    if (named !== undefined) return () => give("label", named);
  }
  if (view() === "grid" && named !== undefined) return () => openGrid(app, { label: named });
  return ALWAYS[key];
}

function onKey(event) {
  const { target, key } = event;
  if (!state || event.ctrlKey || event.altKey || event.metaKey || event.isComposing || event.defaultPrevented) return;
  if (key !== "Escape" && target.closest("select, textarea, input:not([type=checkbox])")) return;
  if (event.repeat) return target.closest("button") ? event.preventDefault() : undefined; // a key that is held answers once
  if (key === " " && target.closest("button, input, summary, a")) return;
  if (byId("help").open && !"h?".includes(key)) return;
  if (!byId("has-keys").checked && key !== "Escape") return;
  const action = actionOf(key.length === 1 ? key.toLowerCase() : key);
  if (!action) return;
  event.preventDefault();
  action();
}

const CLICKS = {
  accept: ON_QUESTION[" "],
  unknown: ON_QUESTION.u,
  bad: ON_QUESTION.x,
  undo,
  earlier: () => step(-1),
  later: () => step(1),
  "to-name": () => askForNames(),
  "close-name": closeNames,
  "close-alert": () => fail(""),
  "to-grid": ALWAYS.g,
  "to-map": ALWAYS.m,
  "to-help": toHelp,
  "to-done": () => openDone(app),
};

function listen() {
  document.addEventListener("keydown", onKey);
  for (const [id, action] of Object.entries(CLICKS)) byId(id).addEventListener("click", () => action());
  for (const back of document.querySelectorAll(".back")) back.addEventListener("click", () => turnTo("question"));
  // after a click by mouse or touch the space bar accepts the next suggestion, and does not click again
  byId("question").addEventListener("click", (event) => event.detail && event.target.closest("button")?.blur());
  byId("new-class").addEventListener("submit", (event) => (event.preventDefault(), addName()));
  byId("name").addEventListener("keydown", (event) => event.key === "Escape" && (event.preventDefault(), closeNames()));
  setInterval(() => {
    if (document.hidden || link.isLost) return;
    if (state.extracting || !shown) refresh();
  }, POLL_MS);
}

async function start() {
  stayAlive();
  try {
    const [fresh, before] = await Promise.all([ask("/state"), ask("/answered").catch(() => ({ numbers: [] }))]);
    answered.push(...before.numbers);
    apply(fresh);
    listen();
    await current();
  } catch (error) {
    fail(error.message, () => location.reload());
  }
}

start();
