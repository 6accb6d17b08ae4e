// The clipboard panel: for browsers that do not let a page use the clipboard by itself, and for seeing what would be pasted.

import { element, say } from "./words.js";

export class Clipboard {
  #panel = element("clipboard-panel");
  #button = element("clipboard");
  #text = element("clipboard-text");
  #dot = element("clipboard").querySelector(".dot");

  /**
   * @param {(text: string) => void} send gives text to the desktop
   * @param {() => void} closed
   */
  constructor(send, closed) {
    this.#button.addEventListener("click", () => (this.#panel.hidden ? this.#open() : this.#close(closed)));
    element("clipboard-close").addEventListener("click", () => this.#close(closed));
    this.#panel.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Escape") this.#close(closed);
    });
    element("clipboard-send").addEventListener("click", () => {
      send(this.#text.value);
      this.#note("clipboard_sent");
    });
    element("clipboard-copy").addEventListener("click", () => this.#copy());
  }

  /** The desktop's clipboard has new text. @param {string} text */
  arrive(text) {
    if (text === this.#text.value) return;
    this.#text.value = text;
    if (this.#panel.hidden) this.#dot.hidden = false;
    else this.#note("clipboard_new");
  }

  /** Viewers see what comes, they cannot send. */
  readOnly() {
    element("clipboard-send").hidden = true;
  }

  #open() {
    this.#panel.hidden = false;
    this.#dot.hidden = true;
    this.#button.setAttribute("aria-expanded", "true");
    this.#note("");
    this.#text.focus();
    this.#text.select();
  }

  /** @param {() => void} closed */
  #close(closed) {
    this.#panel.hidden = true;
    this.#button.setAttribute("aria-expanded", "false");
    closed();
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(this.#text.value);
      this.#note("clipboard_copied");
    } catch {
      this.#text.focus();
      this.#text.select();
      this.#note("clipboard_manual");
    }
  }

  /** @param {string} key */
  #note(key) {
    element("clipboard-note").textContent = key && say(key);
  }
}
