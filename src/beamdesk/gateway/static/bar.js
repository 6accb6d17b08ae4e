// The bar: comes when the pointer reaches the top edge's handle or Ctrl+Shift+M is pressed, goes when it is not needed.

import { element, say } from "./words.js";

const STAYS_MS = 4000;
const KEY = "beamdesk-bar-hidden";

export class Bar {
  #root = document.documentElement;
  #bar = element("bar");
  #timer = 0;
  /** @type {() => void} */ onHide = () => {};

  constructor() {
    element("show").addEventListener("click", () => this.show(true));
    element("show").addEventListener("pointerenter", (/** @type {PointerEvent} */ event) => event.pointerType === "mouse" && this.show());
    element("hide").addEventListener("click", () => this.hide(true));
    this.#bar.addEventListener("pointerleave", () => this.#leaveSoon());
    this.#bar.addEventListener("pointerenter", () => window.clearTimeout(this.#timer));
    this.#bar.addEventListener("focusout", () => this.#leaveSoon());
    this.#bar.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.#onKey(event));
    document.addEventListener("fullscreenchange", () => this.#tellFull());
    element("full").addEventListener("click", () => this.#toggleFull());
    if (!document.fullscreenEnabled) element("full").hidden = true;
  }

  /** Show the bar; `focus`: for somebody who asked for it, so the keyboard can go on. */
  show(focus = false) {
    this.#root.dataset.bar = "open";
    window.clearTimeout(this.#timer);
    if (focus) this.#tools()[0]?.focus();
    else this.#leaveSoon();
  }

  /** @param {boolean} [wanted] whether the person asked for it */
  hide(wanted = false) {
    window.clearTimeout(this.#timer);
    delete this.#root.dataset.bar;
    if (wanted) sessionStorage.setItem(KEY, "1");
    this.onHide();
  }

  toggle() {
    if (this.#root.dataset.bar === "open" && this.#bar.contains(document.activeElement)) this.hide(true);
    else this.show(true);
  }

  /** Introduce the bar once a visit. */
  introduce() {
    if (!sessionStorage.getItem(KEY)) this.show();
  }

  #leaveSoon() {
    window.clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => {
      const busy = this.#bar.matches(":hover") || this.#bar.contains(document.activeElement) || !element("clipboard-panel").hidden;
      if (busy) this.#leaveSoon();
      else this.hide();
    }, STAYS_MS);
  }

  /** @returns {HTMLElement[]} */
  #tools() {
    const shown = (/** @type {HTMLElement} */ tool) => tool.offsetParent !== null;
    return [.../** @type {NodeListOf<HTMLElement>} */ (this.#bar.querySelectorAll("button"))].filter(shown);
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const tools = this.#tools();
    const here = tools.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step && here >= 0) tools[(here + step + tools.length) % tools.length].focus();
    else if (event.key === "Escape") this.hide(true);
    else return;
    event.preventDefault();
  }

  async #toggleFull() {
    if (document.fullscreenElement) await document.exitFullscreen();
    else await document.documentElement.requestFullscreen({ navigationUI: "hide" });
    // With it, Escape and Alt+Tab reach the desktop, too (where the browser can).
    await /** @type {any} */ (navigator).keyboard?.lock?.().catch(() => {});
  }

  #tellFull() {
    const full = document.fullscreenElement !== null;
    label(element("full"), full, say(full ? "leave_full_screen" : "full_screen"));
  }
}

/**
 * Set state and name of a switch.
 * @param {HTMLElement} button
 * @param {boolean} on
 * @param {string} text
 */
export function label(button, on, text) {
  button.dataset.on = String(on);
  button.title = text;
  button.setAttribute("aria-label", text);
}
