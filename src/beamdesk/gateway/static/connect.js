// The connect page: puts stream, session, bar and clipboard together, and decides what is shown when the picture is away.

import { Bar, label } from "./bar.js";
import { Clipboard } from "./clipboard.js";
import { Session } from "./session.js";
import { Stream } from "./stream.js";
import { boot, duration, element, say } from "./words.js";

const QUIET_MS = 400; // a shorter interruption is not worth a word
const WARN_AT_S = [30 * 60, 5 * 60];

const root = document.documentElement;
const stream = new Stream();
const session = new Session();
const bar = new Bar();
const clipboard = new Clipboard((text) => stream.sendClipboard(text), () => stream.focus());
let warned = Infinity;
let quiet = 0;
let over = false;

/** @param {"connecting" | "reconnecting" | "message" | "taken" | "open"} state @param {string} [title] @param {string} [text] */
function show(state, title = "", text = "") {
  root.dataset.state = state;
  if (state === "open") return;
  element("cover-title").textContent = title;
  element("cover-text").textContent = text;
}

/** @param {string} text @param {() => void} action */
function offer(text, action) {
  const button = element("cover-action");
  button.hidden = false;
  button.textContent = text;
  button.onclick = action;
  button.focus();
}

/** The end: nothing connects again by itself. @param {"message" | "taken"} state @param {string} title @param {string} text */
function finish(state, title, text) {
  over = true;
  window.clearTimeout(quiet);
  stream.stop();
  bar.hide();
  if (document.fullscreenElement) document.exitFullscreen();
  show(state, title, text);
  if (state === "taken") offer(say("use_here"), () => location.reload());
  else element("cover-back").focus();
}

function judge() {
  const { state, title, text } = session.look;
  if (over) return;
  if (session.replaced) finish("taken", say("taken_over"), say("taken_over_hint"));
  else if (state === "waiting") show("reconnecting", title, text);
  else if (state !== "open") finish("message", title, text);
}

function onPicture() {
  window.clearTimeout(quiet);
  if (over) return;
  const first = root.dataset.state === "connecting";
  show("open");
  performance.mark("beamdesk-picture");
  if (first) bar.introduce();
  stream.focus();
}

/** @param {CustomEvent<{superseded: boolean}>} event */
async function onLost(event) {
  if (over) return;
  if (event.detail.superseded) {
    finish("taken", say("taken_over"), say("taken_over_hint"));
    return;
  }
  window.clearTimeout(quiet);
  if (root.dataset.state === "open") {
    quiet = window.setTimeout(() => {
      if (root.dataset.state === "open") show("reconnecting", say("reconnecting"), say("reconnecting_hint"));
    }, QUIET_MS);
  }
  await session.refresh();
}

function onTick() {
  const left = session.left;
  element("left").textContent = duration(left);
  element("lease").dataset.level = left <= WARN_AT_S[1] ? "last" : left <= WARN_AT_S[0] ? "soon" : "";
  element("extend").hidden = element("toast-extend").hidden = !session.look.may_extend;
  const due = WARN_AT_S.filter((limit) => left <= limit).at(-1) ?? Infinity;
  if (due < warned && root.dataset.state === "open") element("toast").hidden = false;
  warned = due;
  if (due === Infinity) element("toast").hidden = true;
  if (!element("toast").hidden) element("toast-text").textContent = say("lease_warning", { left: duration(left) });
}

async function extend() {
  const error = await session.extend();
  element("toast").hidden = false;
  element("toast-text").textContent = error || say("extended", { left: duration(session.left) });
  window.setTimeout(() => (element("toast").hidden = warned === Infinity ? true : element("toast").hidden), error ? 8000 : 4000);
  stream.focus();
}

/** @param {boolean} on */
function labelSound(on) {
  label(element("sound"), on, say(on ? "sound_off" : "sound_on"));
}

function wire() {
  stream.addEventListener("picture", onPicture);
  stream.addEventListener("lost", /** @type {any} */ (onLost));
  stream.addEventListener("menu", () => bar.toggle());
  stream.addEventListener("clipboard", (/** @type {any} */ event) => clipboard.arrive(event.detail.text));
  stream.addEventListener("numbers", (/** @type {any} */ event) => {
    const { latency, rate } = event.detail;
    element("latency").textContent = latency === null ? "–" : String(Math.max(1, Math.round(latency)));
    element("rate").textContent = rate === null ? "–" : String(Math.round(rate));
  });
  stream.addEventListener("sound", (/** @type {any} */ event) => {
    const { on, possible } = event.detail;
    if (possible !== undefined) element("sound").hidden = !possible;
    if (on !== undefined) labelSound(on);
  });
  session.addEventListener("look", judge);
  session.addEventListener("tick", onTick);
  bar.onHide = () => stream.focus();
  element("sound").addEventListener("click", () => {
    const on = element("sound").dataset.on !== "true";
    stream.setSound(on);
    labelSound(on); // the server's word comes later, and counts
  });
  element("keyboard").addEventListener("click", () => stream.showKeyboard());
  element("extend").addEventListener("click", extend);
  element("toast-extend").addEventListener("click", extend);
  element("toast-close").addEventListener("click", () => (element("toast").hidden = true));
  element("leave").addEventListener("click", async () => {
    over = true;
    stream.stop();
    location.assign(await session.end());
  });
}

async function main() {
  root.dataset.role = boot.look.role;
  if (boot.look.role === "viewer") {
    element("viewer").hidden = false;
    clipboard.readOnly();
  }
  wire();
  session.start();
  if (!Stream.possible) {
    finish("message", say("no_decoder"), say("no_decoder_hint"));
    return;
  }
  if (boot.look.state === "waiting") show("reconnecting", boot.look.title, boot.look.text);
  await stream.start(boot.client);
}

main();
