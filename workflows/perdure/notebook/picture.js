// Draws the model's `html` into the page, altering only what differs: a picture that changes twice
// a second keeps its scroll positions, open lists and selections. Tells the kernel whether it is
// in sight, so that nothing is drawn for nobody.

function render({ model, el }) {
  const draw = () => {
    const made = document.createElement("template");
    made.innerHTML = model.get("html");
    alterChildren(el, made.content);
  };
  model.on("change:html", draw);
  draw();

  let inView = true;
  const tell = () => {
    const seen = inView && document.visibilityState === "visible";
    if (model.get("is_seen") !== seen) {
      model.set("is_seen", seen);
      model.save_changes();
    }
  };
  const observer = new IntersectionObserver((entries) => {
    inView = entries.at(-1).isIntersecting;
    tell();
  });
  observer.observe(el);
  document.addEventListener("visibilitychange", tell);
  return () => {
    model.off("change:html", draw);
    observer.disconnect();
    document.removeEventListener("visibilitychange", tell);
  };
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

export default { render };
