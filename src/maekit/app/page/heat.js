// Errors as colours, from dark over violet and orange to pale: brighter is further off.

const STOPS = [[12, 10, 38], [92, 20, 110], [186, 55, 84], [249, 142, 9], [252, 255, 164]];

function colour(share) {
  const place = Math.min(1, Math.max(0, share)) * (STOPS.length - 1);
  const low = Math.min(STOPS.length - 2, Math.floor(place));
  return STOPS[low].map((value, channel) => value + (STOPS[low + 1][channel] - value) * (place - low));
}

function fill(canvas, rows, columns, shareOf) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(columns, rows);
  for (let place = 0; place < rows * columns; place += 1) pixels.data.set([...colour(shareOf(place)), 255], place * 4);
  context.putImageData(pixels, 0, 0);
}

/** Errors [rows][columns] on a canvas, `most` as the brightest. */
export function heat(canvas, errors, most) {
  const columns = errors[0].length;
  fill(canvas, errors.length, columns, (place) => errors[Math.floor(place / columns)][place % columns] / most);
}

/** The scale that belongs to it. */
export function scale(canvas) {
  fill(canvas, 1, 64, (place) => place / 63);
}
