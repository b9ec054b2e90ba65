// Draws the model's `html` into each picture of its `key` in the page, altering only what differs:
// a picture that changes twice a second keeps its scroll positions, open lists and selections.
// Tells the kernel whether one is in sight, so that nothing is drawn for nobody.

const LOOK_EVERY_MS = 1000;

function initialize({ model }) {
  const selector = `[data-perdure-picture="${model.get("key")}"]`;
  const pictures = new Set();
  const watcher = new MutationObserver(() => draw());

  const draw = () => {
    for (const found of document.querySelectorAll(selector)) {
      if (!pictures.has(found)) takeIn(found);
    }
    const made = document.createElement("template");
    made.innerHTML = model.get("html");
    for (const each of pictures) alterChildren(each, made.content.cloneNode(true));
  };
  // The page has put a picture in the place of one that we know, as the kernel has asked it to keep
  // another: ours is as new, and has what the reader opened.
  const takeIn = (found) => {
    const ours = [...pictures].find((each) => !each.parentNode);
    if (ours) found.replaceWith(ours);
    const picture = ours ?? found;
    pictures.add(picture);
    watcher.observe(picture.parentNode, { childList: true });
  };
  const look = () => {
    const there = [...document.querySelectorAll(selector)];
    if (there.some((each) => !pictures.has(each))) draw();
    const seen = document.visibilityState === "visible" && there.some(isInView);
    if (model.get("is_seen") !== seen) {
      model.set("is_seen", seen);
      model.save_changes();
    }
  };

  model.on("change:html", draw);
  draw();
  const timer = setInterval(look, LOOK_EVERY_MS);
  return () => {
    model.off("change:html", draw);
    watcher.disconnect();
    clearInterval(timer);
  };
}

// Only where the page is given a view to show: what is drawn is found there, as everywhere.
function render({ model, el }) {
  const picture = document.createElement("div");
  picture.dataset.perdurePicture = model.get("key");
  picture.innerHTML = model.get("html");
  el.append(picture);
}

function isInView(element) {
  const { width, top, bottom } = element.getBoundingClientRect();
  return width > 0 && bottom > 0 && top < window.innerHeight;
}

function alterChildren(old, now) {
  const olds = [...old.childNodes];
  const nows = [...now.childNodes];
  nows.forEach((each, at) => {
    if (at >= olds.length) old.append(each);
    else alter(olds[at], each);
  });
  olds.slice(nows.length).forEach((each) => each.remove());
}

function alter(old, now) {
  if (old.nodeType !== now.nodeType || old.nodeName !== now.nodeName) {
    old.replaceWith(now);
  } else if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== now.nodeValue) old.nodeValue = now.nodeValue;
  } else {
    alterAttributes(old, now);
    alterChildren(old, now);
  }
}

function alterAttributes(old, now) {
  for (const { name, value } of now.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    const isReaders = name === "open" && old.nodeName === "DETAILS";
    if (!now.hasAttribute(name) && !isReaders) old.removeAttribute(name);
  }
}

export default { initialize, render };
