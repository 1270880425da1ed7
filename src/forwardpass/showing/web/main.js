import { html, render } from "fwd/dom.js";
import { Shell } from "fwd/shell.js";

render(html`<${Shell} />`, /** @type {HTMLElement} */ (document.getElementById("page")));
