// Steps through scenes. The page contains all data: data = {scenes, panels}.
// A scene: {svg, alt, captions, shapes: [[from, until or null], ...]}.
// A panel: {label, choices: [[name, index of the scene], ...]}.
(function (root, data) {
  const frames = () => Math.max(...panels.map((p) => data.scenes[p.scene].captions.length));
  let frame = 0, timer = null;
  const make = (tag, attributes, parent) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    parent.appendChild(element);
    return element;
  };
  root.querySelector(".static").remove();
  const bar = make("div", { class: "bar" }, root);
  const button = (text, label, act) => {
    const element = make("button", { type: "button", "aria-label": label, title: label }, bar);
    element.textContent = text;
    element.addEventListener("click", act);
    return element;
  };
  button("|◀", "first step (Home)", () => go(0));
  button("◀", "previous step (left arrow)", () => go(frame - 1));
  const play = button("▶ play", "play or stop (space)", toggle);
  button("▶", "next step (right arrow)", () => go(frame + 1));
  button("▶|", "last step (End)", () => go(frames() - 1));
  const slider = make("input", { type: "range", min: 0, "aria-label": "step" }, bar);
  slider.addEventListener("input", () => go(Number(slider.value)));
  const where = make("span", { class: "where" }, bar);
  const row = make("div", { class: "panels" }, root);
  const panels = data.panels.map((panel) => {
    const box = make("div", { class: "panel" }, row);
    const own = { scene: panel.choices[0][1] };
    if (panel.choices.length > 1) {
      const label = make("label", {}, box);
      label.textContent = panel.label + " ";
      const select = make("select", {}, label);
      panel.choices.forEach(([name, scene]) => {
        make("option", { value: scene }, select).textContent = name;
      });
      select.addEventListener("change", () => { own.scene = Number(select.value); show(own); go(frame); });
    }
    own.caption = make("p", { class: "caption", "aria-live": "polite" }, box);
    own.picture = make("div", { class: "picture", role: "img" }, box);
    return own;
  });
  root.appendChild(root.querySelector("details"));
  function show(panel) {
    const scene = data.scenes[panel.scene];
    panel.picture.innerHTML = scene.svg;
    panel.picture.setAttribute("aria-label", scene.alt);
    // A wide picture takes a whole row.
    const wide = panel.picture.querySelector("svg").viewBox.baseVal.width > 640;
    panel.picture.parentElement.style.flexBasis = wide ? "100%" : "";
    panel.groups = scene.shapes.map((_, k) =>
      [...panel.picture.querySelectorAll(`[id="shape-${k}"], [id="shape-${k}a"], [id="shape-${k}b"]`)]);
    // Ids must be unique on a page, and several pictures use the same ones.
    panel.groups.flat().forEach((group) => group.removeAttribute("id"));
  }
  function go(to) {
    frame = Math.max(0, Math.min(frames() - 1, to));
    slider.max = frames() - 1;
    slider.value = frame;
    where.textContent = `${frame} of ${frames() - 1}`;
    for (const panel of panels) {
      const scene = data.scenes[panel.scene];
      const own = Math.min(frame, scene.captions.length - 1);
      scene.shapes.forEach(([from, until], k) => {
        const there = from <= own && (until === null || own < until);
        for (const group of panel.groups[k]) {
          group.style.display = there ? "" : "none";
          group.classList.toggle("new", there && from === own && own > 0);
        }
      });
      const done = frame > own ? " (done)" : "";
      panel.caption.textContent = scene.captions[own] + done;
    }
    if (frame === frames() - 1) stop();
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "▶ play";
  }
  function toggle() {
    if (timer) return stop();
    if (frame === frames() - 1) go(0);
    timer = setInterval(() => (root.isConnected ? go(frame + 1) : stop()), 900);
    play.textContent = "■ stop";
  }
  root.addEventListener("keydown", (event) => {
    if (event.target.tagName === "SELECT") return;
    const keys = { ArrowRight: () => go(frame + 1), ArrowLeft: () => go(frame - 1),
      Home: () => go(0), End: () => go(frames() - 1), " ": toggle };
    if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  });
  panels.forEach(show);
  go(0);
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (root.dataset.autoplay !== undefined && !still) toggle();
})
