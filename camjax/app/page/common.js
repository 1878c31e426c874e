// What both pages need: requests to the server, and drawing boxes and maps.

export const element = (id) => document.getElementById(id);

/** An element with properties and children; texts are never taken as HTML. */
export function make(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** An error whose message the server wrote for people. */
export class Told extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Asks the server; throws Told with its sentence. */
export async function ask(path, parameters = {}, options = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters))
    for (const one of Array.isArray(value) ? value : [value]) query.append(name, one);
  let response;
  try {
    response = await fetch(`${path}?${query}`, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Told("The server does not answer. Is camjax app still running?", 0);
  }
  if (!response.ok) {
    const sentence = await response.json().then((content) => content.error, () => null);
    throw new Told(sentence || `The server answered ${response.status}.`, response.status);
  }
  return response;
}

export const askJSON = async (...request) => (await ask(...request)).json();

/** Bytes of base64. */
export const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** An SVG of boxes [ymin, xmin, ymax, xmax] in 0..1 with their kinds: "predicted" or "true". */
export function boxesSVG(boxes) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 1 1");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const [[ymin, xmin, ymax, xmax], kind] of boxes)
    for (const style of ["under", kind]) {
      const rect = document.createElementNS(space, "rect");
      rect.setAttribute("class", style);
      for (const [name, value] of Object.entries({ x: xmin, y: ymin, width: xmax - xmin, height: ymax - ymin }))
        rect.setAttribute(name, value);
      svg.append(rect);
    }
  return svg;
}

/** The least and the greatest value of a map; zeros, which no color stands for, where some are not finite. */
export function range({ values }) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value)) return [0, 0];
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return [low, high];
}

/** Draws a map (h, w) on a canvas, with a table of 256 colors for its values from low to high.
 *  Bilinear with half-pixel centers, as camjax.resize_map. A map without a scale has the lowest color. */
export function drawMap(canvas, { values, shape: [rows, columns] }, colors, [low, high]) {
  const { width, height } = canvas;
  const along = (length, cells) =>
    Array.from({ length }, (_, i) => {
      const place = Math.min(Math.max(((i + 0.5) * cells) / length - 0.5, 0), cells - 1);
      const low = Math.floor(place);
      return [low, Math.min(low + 1, cells - 1), place - low];
    });
  const xs = along(width, columns);
  const scale = high > low && values.every(Number.isFinite) ? 256 / (high - low) : 0;
  const image = new ImageData(width, height);
  along(height, rows).forEach(([top, bottom, down], y) =>
    xs.forEach(([left, right, across], x) => {
      const above = values[top * columns + left] * (1 - across) + values[top * columns + right] * across;
      const below = values[bottom * columns + left] * (1 - across) + values[bottom * columns + right] * across;
      const value = above * (1 - down) + below * down;
      // Matplotlib's rule for its tables of 256 colors.
      const color = scale ? Math.min(255, Math.max(0, Math.floor((value - low) * scale))) : 0;
      const pixel = 4 * (y * width + x);
      for (let channel = 0; channel < 3; channel++) image.data[pixel + channel] = colors[3 * color + channel];
      image.data[pixel + 3] = 255;
    }),
  );
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Shows a Told error, or the lack of one, in the element #error. */
export function tell(error) {
  const place = element("error");
  place.hidden = !error;
  place.textContent = error ? error.message : "";
  if (error && !(error instanceof Told)) throw error;
}

export const percent = (share) => `${(100 * share).toFixed(1)} %`;
