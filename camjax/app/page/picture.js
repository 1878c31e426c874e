// The first page: one picture, a network, methods, classes; maps and boxes.

import { ask, askJSON, boxesSVG, bytes, drawMap, element, make, percent, range, tell, Told } from "./common.js";

const MAP_SIDE = 320; // pixels of a drawn map; CSS scales it

const state = {
  start: null, // what the server offers
  network: null, // {number, class_names, num_classes, methods}
  picture: null, // {picture, name, width, height, again: sends it again}
  chosen: [], // ids of classes added by name
  classes: [], // rows of the table
  maps: new Map(), // method -> class id -> {values, shape, box}
  selected: { method: null, id: null },
  asked: 0, // number of the last question; older answers are dropped
  asking: new AbortController(), // of the last question: the server stops computing what nobody waits for
};

const methods = () => [...document.querySelectorAll("#controls [name=method]:checked")].map((box) => box.value);
const number = (id) => Number(element(id).value);
const nameOf = (id) => state.network.class_names?.[id] ?? `class ${id}`;
const found = ({ method, id }) => state.maps.get(method)?.get(id);

// Asking the server ------------------------------------------------------------------------------------------------

/** Takes a picture; `send` sends it and gives the server's answer. */
async function takePicture(send) {
  const asked = ++state.asked;
  state.asking.abort();
  tell(null);
  status("Reading the picture …");
  try {
    const answer = await send();
    if (asked !== state.asked) return;
    state.picture = { ...answer, again: send };
    state.maps.clear();
    await explain();
  } catch (error) {
    if (asked === state.asked) fail(error);
  }
}

const upload = (file) => () =>
  file.size > state.start.max_bytes
    ? Promise.reject(new Told(`${file.name}: ${(file.size / 2 ** 20).toFixed(1)} MiB; expected at most ${state.start.max_bytes / 2 ** 20} MiB. Make a smaller copy of the image.`))
    : askJSON("/api/pictures", { name: file.name }, { method: "POST", body: file });

/** A request about the picture; sends the picture again if the server no longer keeps it. */
async function askAbout(path, parameters, options = {}) {
  const query = { network: state.network.number, threshold: number("threshold"), ...parameters };
  try {
    return await ask(path, { picture: state.picture.picture, ...query }, options);
  } catch (error) {
    if (error.status !== 410) throw error;
    await state.picture.again();
    return ask(path, { picture: state.picture.picture, ...query }, options);
  }
}

/** Asks for the maps of all methods, one after the other, and shows each as it comes. */
async function explain() {
  const asked = ++state.asked;
  state.asking.abort();
  if (!state.picture || !state.network) return;
  state.asking = new AbortController();
  const { signal } = state.asking;
  tell(null);
  const names = methods();
  try {
    if (!names.length) throw new Told("Choose at least one method.");
    const maps = new Map();
    for (const method of names) {
      const question = { method, top_k: element("top-k").value || 0, class: state.chosen };
      const working = waiting(`${method}: running …`);
      const answer = await askAbout("/api/explain", question, { signal }).then((response) => response.json()).finally(() => clearInterval(working));
      if (asked !== state.asked) return;
      state.classes = answer.classes;
      maps.set(method, new Map(answer.maps.map(({ id, shape, values, box }) => [id, { method, shape, box, values: new Float32Array(bytes(values).buffer) }])));
      state.maps = maps;
      show();
    }
    status("");
    moveBoxes(); // the threshold may have moved meanwhile
  } catch (error) {
    if (asked === state.asked) fail(error);
  }
}

let moving = false, moveAgain = false;

/** Asks for the boxes at the present threshold, one request at a time; the maps stay. */
async function moveBoxes() {
  if (moving) { moveAgain = true; return; }
  moving = true;
  try {
    do {
      moveAgain = false;
      const maps = state.maps, first = [...maps.keys()][0];
      if (!first) break;
      const ids = [...maps.get(first).keys()];
      const boxes = await (await askAbout("/api/boxes", { method: [...maps.keys()], class: ids })).json();
      if (maps !== state.maps) continue;
      for (const [method, of] of Object.entries(boxes)) ids.forEach((id, i) => { maps.get(method).get(id).box = of[i]; });
      showBoxes();
    } while (moveAgain);
  } catch (error) {
    fail(error);
  } finally {
    moving = false;
  }
}

async function chooseNetwork() {
  const asked = ++state.asked;
  const which = number("network");
  status("Loading the network …", true);
  tell(null);
  try {
    const answer = await askJSON("/api/network", { network: which });
    if (asked !== state.asked) return;
    state.network = { number: which, ...answer };
    state.chosen = [];
    state.maps.clear();
    listMethods();
    element("names").replaceChildren(
      ...Array.from({ length: answer.num_classes }, (_, id) => make("option", { value: `${nameOf(id)} (${id})` })),
    );
    listChosen();
    const hint = state.start.examples.length ? "Drop a picture, or choose an example." : "Drop a picture.";
    status(state.picture ? "" : hint);
    await explain();
  } catch (error) {
    if (asked === state.asked) fail(error);
  }
}

async function download(what) {
  const ids = [...(state.maps.get(state.selected.method)?.keys() ?? [])];
  const one = what === "map.npy";
  tell(null);
  try {
    const response = await askAbout(`/api/${what}`, {
      method: one ? state.selected.method : [...state.maps.keys()],
      class: one ? state.selected.id : ids,
      opacity: number("opacity"), colormap: element("colormap").value, scale: element("scale").value, box: element("box").checked ? 1 : 0,
    });
    const stem = state.picture.name.replace(/\.[^.]*$/, "");
    const part = one ? `_${state.selected.method}_${state.selected.id}.npy` : `_${what}`;
    const link = make("a", { href: URL.createObjectURL(await response.blob()), download: stem + part });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  } catch (error) {
    fail(error);
  }
}

// Showing ----------------------------------------------------------------------------------------------------------

function status(text, busy = false) {
  element("status").textContent = text;
  element("result").ariaBusy = busy;
}

/** Says that something runs, and how far it is; returns what clearInterval ends. */
function waiting(text) {
  status(text, true);
  return setInterval(async () => {
    const { working } = await askJSON("/api/status").catch(() => ({}));
    if (element("result").ariaBusy === "true" && working) status(`${text} The server is at ${working}.`, true);
  }, 1000);
}

function fail(error) {
  status("");
  tell(error);
}

/** The picture, and over it a map and its box. */
function layers(map) {
  const { picture, width, height, name } = state.picture;
  const canvas = make("canvas", { width: MAP_SIDE, height: Math.max(1, Math.round((MAP_SIDE * height) / width)) });
  if (canvas.height > MAP_SIDE) [canvas.width, canvas.height] = [Math.max(1, Math.round((MAP_SIDE * width) / height)), MAP_SIDE];
  canvas.ariaHidden = true;
  const made = make("div", { className: "layers" }, make("img", { src: `/api/picture?picture=${picture}`, alt: name }));
  made.style.aspectRatio = `${width} / ${height}`;
  if (map) {
    made.append(canvas);
    made.map = canvas.map = map;
    paint(canvas);
    made.append(boxesSVG([]));
  }
  return made;
}

/** The values of the lowest and of the highest color, as the scales of camjax.viz. */
function limits(map) {
  if (element("scale").value === "each") return range(map);
  return [0, Math.max(0, ...[...state.maps.get(map.method).values()].map((one) => range(one)[1]))];
}

function paint(canvas) {
  drawMap(canvas, canvas.map, state.start.colormaps[element("colormap").value], limits(canvas.map));
  canvas.style.opacity = number("opacity");
}

/** Shows where the boxes are now: on the maps, below the picture, and in the table. */
function showBoxes() {
  const { selected, maps, classes, network } = state;
  for (const made of document.querySelectorAll(".layers"))
    made.querySelector("svg")?.replaceWith(boxesSVG(made.map.box && element("box").checked ? [[made.map.box.shares, "predicted"]] : []));
  const row = classes.find((one) => one.id === selected.id);
  const box = found(selected).box;
  const place = box ? `Box in pixels: ${box.pixels.map((edge, i) => `${["top", "left", "bottom", "right"][i]} ${edge}`).join(", ")}.` : "No box: the map has no region.";
  const own = network.methods.find((one) => one.name === selected.method)?.own_box;
  element("caption").textContent = `${row.name}: ${percent(row.probability)}, by ${selected.method}. ${place}`
    + (own ? ` ${selected.method} has a box rule of its own, without a threshold.` : "");
  for (const one of element("classes").tBodies[0].rows) {
    const map = maps.get(selected.method).get(Number(one.dataset.id));
    one.lastElementChild.textContent = !map ? "not shown" : map.box ? map.box.pixels.join(", ") : "none";
  }
}

/** Shows the state; keeps the selection where it can. */
function show() {
  const { selected, maps } = state;
  const order = [...maps.keys()];
  if (!maps.has(selected.method)) selected.method = order[0];
  const of = maps.get(selected.method);
  if (!of.has(selected.id)) selected.id = [...of.keys()][0];
  const map = found(selected);
  element("shown").hidden = false;

  const main = layers(map);
  const { width, height } = state.picture;
  main.style.width = `min(100%, 40rem, ${(34 * width) / height}rem)`;
  element("main").querySelector(".layers").replaceWith(main);

  const focused = document.activeElement?.dataset?.key;
  element("classes").tBodies[0].replaceChildren(...state.classes.map((one) => {
    const button = make("button", { type: "button", textContent: one.name, onclick: () => selectClass(one.id) });
    button.dataset.key = `class ${one.id}`;
    const made = make("tr", {},
      make("td", { className: "number", textContent: one.rank }), make("td", {}, button),
      make("td", { className: "number", textContent: one.id }),
      make("td", { className: "number", textContent: percent(one.probability) }), make("td"));
    made.className = one.id === selected.id ? "selected" : "";
    if (one.id === selected.id) button.setAttribute("aria-current", "true");
    made.dataset.id = one.id;
    return made;
  }));

  element("comparison").hidden = order.length * of.size < 2;
  element("grid").style.setProperty("--columns", order.length > 1 ? order.length : of.size);
  element("grid").replaceChildren(...[...of.keys()].flatMap((id) => order.map((method) => {
    const pressed = id === selected.id && method === selected.method;
    const button = make("button", { type: "button", onclick: () => { state.selected = { method, id }; show(); } },
      layers(found({ method, id })), make("span", {}, make("b", { textContent: method }), ` ${nameOf(id)}`));
    button.setAttribute("aria-pressed", pressed);
    button.dataset.key = `map ${method} ${id}`;
    return button;
  })));
  showBoxes();
  if (focused) document.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function selectClass(id) {
  state.selected.id = id;
  if (found(state.selected)) show();
  else addClass(id);
}

function addClass(id) {
  if (!state.chosen.includes(id)) state.chosen.push(id);
  state.selected.id = id;
  listChosen();
  explain();
}

function listChosen() {
  element("chosen").replaceChildren(...state.chosen.map((id) => {
    const button = make("button", { type: "button", textContent: `${nameOf(id)} ×`, ariaLabel: `Take ${nameOf(id)} away` });
    button.onclick = () => {
      state.chosen = state.chosen.filter((one) => one !== id);
      listChosen();
      explain();
      element("search").focus();
    };
    return make("li", {}, button);
  }));
}

function listMethods() {
  const before = new Set(methods().length ? methods() : ["cam"]);
  const offered = state.network.methods;
  if (!offered.some(({ name }) => before.has(name))) before.add(offered[0].name);
  const boxOf = ({ name }) => {
    const box = make("input", { type: "checkbox", name: "method", value: name, checked: before.has(name), onchange: explain });
    return make("label", { className: "check" }, box, name);
  };
  element("methods").replaceChildren(...offered.filter((one) => !one.slow).map(boxOf));
  const slow = element("slow-methods");
  slow.hidden = !offered.some((one) => one.slow);
  slow.querySelector(".checks").replaceChildren(...offered.filter((one) => one.slow).map(boxOf));
}

/** Adds the class that the text of the search field names, if it names one. */
function search(last) {
  const text = element("search").value.trim();
  if (!text || !state.network) return;
  const id = /\((\d+)\)$/.exec(text)?.[1] ?? (/^\d+$/.test(text) && last ? text : null);
  if (id !== null && Number(id) < state.network.num_classes) {
    element("search").value = "";
    tell(null);
    addClass(Number(id));
  } else if (last) {
    const same = Array.from({ length: state.network.num_classes }, (_, i) => i)
      .filter((i) => nameOf(i).toLowerCase().includes(text.toLowerCase()));
    if (same.length === 1) { element("search").value = ""; addClass(same[0]); }
    else tell(new Told(same.length ? `${same.length} classes have “${text}” in their names: choose one of the list.` : `No class of this network has “${text}” in its name.`));
  }
}

// Controls ---------------------------------------------------------------------------------------------------------

function values() {
  element("threshold-value").textContent = number("threshold").toFixed(2);
  element("opacity-value").textContent = percent(number("opacity")).replace(".0", "");
}

function connect() {
  const drop = element("drop"), file = element("file");
  file.onchange = () => { if (file.files[0]) takePicture(upload(file.files[0])); file.value = ""; };
  for (const event of ["dragover", "dragleave", "drop"])
    document.addEventListener(event, (moved) => { moved.preventDefault(); drop.classList.toggle("over", event === "dragover"); });
  document.addEventListener("drop", ({ dataTransfer }) => { if (dataTransfer.files[0]) takePicture(upload(dataTransfer.files[0])); });
  document.addEventListener("paste", ({ clipboardData }) => { if (clipboardData.files[0]) takePicture(upload(clipboardData.files[0])); });
  element("controls").onsubmit = (event) => event.preventDefault();
  element("network").onchange = chooseNetwork;
  element("top-k").onchange = explain;
  element("search").oninput = () => search(false);
  element("search").onkeydown = (event) => { if (event.key === "Enter") { event.preventDefault(); search(true); } };
  element("threshold").oninput = () => { values(); if (state.maps.size) moveBoxes(); };
  element("opacity").oninput = () => { values(); for (const canvas of document.querySelectorAll("canvas")) canvas.style.opacity = number("opacity"); };
  const repaint = () => { for (const canvas of document.querySelectorAll("canvas")) paint(canvas); };
  for (const id of ["colormap", "scale"]) element(id).onchange = repaint;
  element("box").onchange = () => { if (state.maps.size) showBoxes(); };
  for (const button of document.querySelectorAll("#downloads button")) button.onclick = () => download(button.dataset.what);
}

async function begin() {
  values();
  try {
    state.start = await askJSON("/api/start");
  } catch (error) {
    return fail(error);
  }
  const { networks, examples, colormaps, results, max_bytes, max_pixels, max_top_k } = state.start;
  for (const name in colormaps) colormaps[name] = bytes(colormaps[name]);
  element("limits").textContent = `At most ${max_bytes / 2 ** 20} MiB and ${max_pixels / 1e6} million pixels.`;
  element("top-k").max = max_top_k;
  element("to-results").hidden = !results.length;
  element("network").replaceChildren(...networks.map((title, i) => make("option", { value: i, textContent: title })));
  element("colormap").replaceChildren(...Object.keys(colormaps).map((name) => make("option", { value: name, textContent: name })));
  element("examples").replaceChildren(...examples.map((name, i) => make("button", {
    type: "button", textContent: name, onclick: () => takePicture(() => askJSON("/api/examples", { example: i }, { method: "POST" })),
  })));
  connect();
  await chooseNetwork();
  const opened = /^#results=(\d+)&row=(\d+)$/.exec(location.hash);
  if (opened) takePicture(() => askJSON("/api/results/open", { results: opened[1], row: opened[2] }, { method: "POST" }));
}

begin();
