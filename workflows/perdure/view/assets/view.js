// What a page of a run does by itself: it finds steps, shows what belongs together, and takes newer
// sections in. All that it shows was made and escaped by Python.
(() => {
  "use strict";

  /** Let an element become like another one: what is open, scrolled or selected in it stays so. */
  function morph(old, fresh) {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
      old.replaceWith(fresh.cloneNode(true));
    } else if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    } else if (!old.isEqualNode(fresh)) {
      morphAttributes(old, fresh);
      morphChildren(old, fresh);
    }
  }

  function morphAttributes(old, fresh) {
    const kept = ["open", "hidden"]; // the reader's, not ours
    for (const { name } of [...old.attributes])
      if (!fresh.hasAttribute(name) && !kept.includes(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes)
      if (old.getAttribute(name) !== value && !kept.includes(name)) old.setAttribute(name, value);
  }

  /** Rows of steps may come in another order: each is found again by the step that it is of. */
  function morphChildren(old, fresh) {
    const keyed = new Map();
    for (const child of old.children)
      if (child.dataset?.step) keyed.set(child.dataset.step, child);
    let at = old.firstChild;
    for (const wanted of fresh.childNodes) {
      const same = keyed.get(wanted.dataset?.step);
      if (same && same !== at) {
        old.insertBefore(same, at);
        morph(same, wanted);
      } else if (at && (same || !at.dataset?.step)) {
        const next = at.nextSibling;
        morph(at, wanted);
        at = next;
      } else {
        old.insertBefore(wanted.cloneNode(true), at);
      }
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  /** Take in sections as {name: html}; one that is not there yet is put before what follows it. */
  function patch(root, sections, order = Object.keys(sections)) {
    for (const [name, html] of Object.entries(sections)) {
      const fresh = new DOMParser().parseFromString(html, "text/html").body.firstElementChild;
      const old = root.querySelector(`:scope > [data-section="${CSS.escape(name)}"]`);
      if (old && fresh) morph(old, fresh);
      else if (old) old.remove();
      else if (fresh) {
        const later = order.slice(order.indexOf(name) + 1)
          .map((each) => root.querySelector(`:scope > [data-section="${CSS.escape(each)}"]`));
        root.insertBefore(fresh, later.find(Boolean) ?? root.querySelector(":scope > footer"));
      }
    }
    begin(root);
  }

  function light(root, step, on) {
    for (const each of root.querySelectorAll(`[data-step="${CSS.escape(step)}"]`))
      each.classList.toggle("lit", on);
    const ends = `[data-from="${CSS.escape(step)}"], [data-to="${CSS.escape(step)}"]`;
    for (const edge of root.querySelectorAll(ends)) edge.classList.toggle("lit", on);
  }

  /** Show the rows only that hold every word of what is looked for. */
  function filter(root, text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of root.querySelectorAll("details.step")) {
      const said = row.querySelector("summary").textContent.toLowerCase();
      row.hidden = !words.every((word) => said.includes(word));
    }
  }

  /** Open the row that a link leads to. */
  function openTarget(root) {
    const id = decodeURIComponent(location.hash.slice(1));
    const row = id && root.querySelector(`details[id="${CSS.escape(id)}"]`);
    if (row) {
      row.hidden = false;
      row.open = true;
      row.scrollIntoView({ block: "center" });
    }
  }

  /** Scroll to what failed in a large graph, else to the middle of its top: few begin left. */
  function showFirst(canvas) {
    const box = canvas.querySelector(".node.s-failed:not(.around)")?.getBoundingClientRect();
    const around = canvas.getBoundingClientRect();
    canvas.scrollTop += box ? box.top + box.height / 2 - around.top - around.height / 2 : 0;
    canvas.scrollLeft = box
      ? canvas.scrollLeft + box.left + box.width / 2 - around.left - around.width / 2
      : (canvas.scrollWidth - canvas.clientWidth) / 2;
  }

  function begin(root) {
    for (const input of root.querySelectorAll("input.filter")) {
      input.hidden = false;
      if (input.value) filter(root, input.value);
    }
  }

  function attach(root) {
    if (root.dataset.attached) return;
    root.dataset.attached = "yes";
    let lit = "";
    root.addEventListener("mouseover", (event) => {
      const step = event.target.closest("[data-step]")?.dataset.step ?? "";
      if (step === lit) return;
      if (lit) light(root, lit, false);
      if (step) light(root, step, true);
      lit = step;
    });
    root.addEventListener("input", (event) => {
      if (event.target.matches("input.filter")) filter(root, event.target.value);
    });
    root.addEventListener("change", (event) => {
      if (!event.target.matches("input.zoom")) return;
      if (event.target.checked) showFirst(root.querySelector(".graph .canvas:not(.all)"));
    });
    root.addEventListener("click", (event) => {
      const link = event.target.closest("a[href^='#']");
      if (link) setTimeout(() => openTarget(root)); // the address changes first
    });
    begin(root);
    openTarget(root);
  }

  window.perdureView = { attach, patch };
  for (const root of document.querySelectorAll("main.perdure")) attach(root);
})();
