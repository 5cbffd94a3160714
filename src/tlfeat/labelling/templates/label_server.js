// Talks to the program on this machine: one POST at a time, in order, and again when the connection breaks.

const RETRY_MS = 2000;
const token = document.querySelector("meta[name=token]").content;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** The program answered with an error. */
export class Refused extends Error {
  constructor(status, text) {
    super(text || `The program answered with status ${status}.`);
    this.status = status;
  }
}

/** The program did not answer at all. */
export class Gone extends Error {}

/** An answer that waited behind one that was refused: it was not sent. */
export class Dropped extends Error {}

/** What the page shows of the connection; `onChange` is called when it is lost or found. */
export const link = { isLost: false, nUnsaved: 0, onChange: () => {}, onRefused: () => {} };

function found(isLost) {
  if (link.isLost === isLost) return;
  link.isLost = isLost;
  link.onChange(isLost);
}

async function once(path, body) {
  const post = { method: "POST", headers: { "Content-Type": "application/json", "X-Token": token }, body: JSON.stringify(body) };
  let reply;
  try {
    reply = await fetch(path, { cache: "no-store", ...(body === undefined ? {} : post) });
    const said = await reply.json();
    if (reply.ok) return said;
    throw new Refused(reply.status, said.error);
  } catch (error) {
    if (error instanceof Refused) throw error;
    if (reply && !reply.ok) throw new Refused(reply.status, "");
    throw new Gone();
  }
}

/** Asks until there is an answer; with `isRepeated` false it asks once, as what is done twice may do harm. */
export async function ask(path, body, { isRepeated = true } = {}) {
  for (;;) {
    try {
      const said = await once(path, body);
      found(false);
      return said;
    } catch (error) {
      found(error instanceof Gone);
      if (!(error instanceof Gone)) throw error;
      if (!isRepeated) throw error;
      await pause(RETRY_MS);
    }
  }
}

let last = Promise.resolve(); // the POST before
let era = 0; // grows when a POST is refused: what waits behind it is not sent

/** POSTs when all POSTs before it have been answered. */
export function inOrder(path, body, options) {
  const mine = era;
  link.nUnsaved += 1;
  const sent = last.then(() => {
    if (mine !== era) throw new Dropped();
    return ask(path, body, options);
  });
  last = sent.then(
    () => (link.nUnsaved -= 1),
    (error) => {
      link.nUnsaved -= 1;
      if (!(error instanceof Dropped)) era += 1;
    },
  );
  return sent;
}

/** Resolves when no POST is under way. */
export async function settled() {
  while (link.nUnsaved) await last;
}

/** The text that stands where a picture should be: why it cannot be shown. */
export async function whyUnreadable(path) {
  for (;;) {
    try {
      const reply = await fetch(path);
      const text = reply.ok ? "" : await reply.text();
      return text.slice(0, 500) || "The browser cannot show this picture.";
    } catch {
      found(true);
      await pause(RETRY_MS);
    }
  }
}

let isAsking = false;

async function alive() {
  if (isAsking) return;
  isAsking = true;
  try {
    const reply = await fetch("/alive", { cache: "no-store" });
    const text = reply.ok ? "" : (await reply.json().catch(() => ({}))).error;
    if (reply.ok) found(false);
    else link.onRefused(text || "This page belongs to a program that has ended. Open the address that the program printed.");
  } catch {
    found(true);
  }
  isAsking = false;
}

/** Tells the program that a window is open, and when it closes. */
export function stayAlive() {
  setInterval(alive, RETRY_MS);
  addEventListener("pageshow", (event) => event.persisted && alive());
  addEventListener("pagehide", () => navigator.sendBeacon("/bye", token));
  addEventListener("beforeunload", (event) => link.nUnsaved && event.preventDefault());
}
