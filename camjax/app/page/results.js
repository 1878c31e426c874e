// The second page: what an evaluation or an annotation found, picture by picture.

import { ask, askJSON, boxesSVG, element, make, tell } from "./common.js";

const value = (id) => element(id).value;
let asked = 0, shown = null, classId = "";

/** Asks for a page of pictures, and shows it. */
async function load(page = 0) {
  const mine = ++asked;
  tell(null);
  element("cases").ariaBusy = true;
  try {
    const query = { results: value("results"), order: value("order"), page, class: classId, only: value("only"), measure: value("measure") };
    const answer = await askJSON("/api/results", query);
    if (mine === asked) show(answer);
  } catch (error) {
    if (mine === asked) tell(error);
  } finally {
    if (mine === asked) element("cases").ariaBusy = false;
  }
}

/** Fills a choice, and keeps what was chosen where it is still offered. */
function offer(select, choices) {
  const before = select.value;
  select.replaceChildren(...choices.map(([key, words]) => make("option", { value: key, textContent: words })));
  if (choices.some(([key]) => key === before)) select.value = before;
}

function show(answer) {
  shown = answer;
  offer(element("measure"), answer.measures.map((name) => [name, answer.kind === "evaluation" ? `IoU of ${name}` : name]));
  offer(element("only"), [["", "all pictures"], ...Object.entries(answer.choices)]);
  element("names").replaceChildren(...answer.classes.map(({ id, name, pictures }) => make("option", { value: `${name} (${id})`, label: `${pictures} pictures` })));
  element("facts").textContent = answer.facts;
  const last = answer.first + answer.rows.length;
  element("status").textContent = answer.total ? `Pictures ${answer.first + 1} to ${last} of ${answer.total}.` : "No picture is left: choose another class, or all pictures.";
  element("legend").hidden = !answer.rows.length;
  element("true-key").hidden = answer.kind !== "evaluation";
  element("cases").replaceChildren(...answer.rows.map(caseOf));
  element("pages").hidden = answer.pages < 2;
  element("pages").style.display = answer.pages < 2 ? "" : "flex";
  element("page").value = answer.page + 1;
  element("page").max = answer.pages;
  element("of").textContent = `of ${answer.pages}`;
  element("before").disabled = answer.page === 0;
  element("after").disabled = answer.page === answer.pages - 1;
}

function caseOf(row) {
  const results = value("results");
  const where = new URLSearchParams({ results, row: row.row });
  let layers;
  if (row.readable) {
    const image = make("img", { alt: `${row.name}. ${row.title}. ${row.words}`, loading: "lazy" });
    layers = make("a", { className: "layers", href: `/#${where}`, title: "Look at its maps" }, image);
    image.onload = () => {
      layers.style.aspectRatio = `${image.naturalWidth} / ${image.naturalHeight}`;
      // A tall picture would fill the page: it becomes narrower instead.
      layers.style.width = `min(100%, ${(16 * image.naturalWidth) / image.naturalHeight}rem)`;
      const boxes = [...row.true.map(({ box }) => [box, "true"]), ...row.predicted.map(({ box }) => [box, "predicted"])];
      layers.append(boxesSVG(boxes));
    };
    image.onerror = async () => {
      const why = await ask("/api/results/picture", Object.fromEntries(where)).then(() => "The picture could not be shown.", (error) => error.message);
      layers.replaceWith(missing(why));
    };
    image.src = `/api/results/picture?${where}`;
  } else {
    layers = missing(row.note);
  }
  const made = make("li", {}, layers, make("h3", { textContent: row.title }));
  if (row.words) made.append(make("p", { textContent: row.words, className: row.wrong ? "wrong" : "" }));
  made.append(make("p", { textContent: row.name }));
  if (row.note && row.readable) made.append(make("p", { textContent: row.note, className: "wrong" }));
  return made;
}

const missing = (why) => make("div", { className: "layers missing" }, make("p", { textContent: why }));

/** Takes the class that the search field names: one of the list, or all for an empty field. */
function chooseClass(last) {
  const text = value("class").trim();
  const named = shown?.classes.filter(({ id, name }) => text === `${name} (${id})` || text === String(id)) ?? [];
  const holding = last ? shown.classes.filter(({ name }) => name.toLowerCase().includes(text.toLowerCase())) : [];
  const found = named[0] ?? (holding.length === 1 ? holding[0] : null);
  if (!text || found) {
    const before = classId;
    classId = text ? found.id : "";
    if (classId !== before) load();
  } else if (last) {
    element("status").textContent = holding.length ? `${holding.length} classes have “${text}” in their names: choose one of the list.` : `No picture here is of a class with “${text}” in its name.`;
  }
}

async function begin() {
  try {
    const { results } = await askJSON("/api/start");
    if (!results.length) {
      element("status").textContent = "There are no results to show. Start camjax app with a directory that camjax evaluate or camjax annotate wrote: camjax app OUT.";
      return;
    }
    offer(element("results"), results.map(({ title, kind }, i) => [String(i), `${title} (${kind})`]));
  } catch (error) {
    return tell(error);
  }
  element("filters").onsubmit = (event) => event.preventDefault();
  element("results").onchange = () => {
    classId = element("class").value = "";
    for (const id of ["measure", "only"]) element(id).replaceChildren();
    load();
  };
  for (const id of ["measure", "order", "only"]) element(id).onchange = () => load();
  element("class").oninput = () => chooseClass(false);
  element("class").onchange = () => chooseClass(true);
  element("before").onclick = () => turn(shown.page - 1);
  element("after").onclick = () => turn(shown.page + 1);
  element("page").onchange = () => turn(Math.min(Math.max(1, Number(value("page")) || 1), shown.pages) - 1);
  await load();
}

async function turn(page) {
  await load(page);
  scrollTo(0, 0);
}

begin();
