/** SVG to PNG without a browser: resvg, with DejaVu Sans, the font that our pictures measure their texts in. */
import type * as Resvg from "npm:@resvg/resvg-wasm@2.6.2";
// A package of files without code; this line gives it its place among the dependencies.
import type {} from "npm:dejavu-fonts-ttf@2.37.3";

// As in report/svg.ts: only who draws downloads these.
const RESVG = "npm:@resvg/resvg-wasm@2.6.2", FONT = "npm:dejavu-fonts-ttf@2.37.3";

let ready: Promise<{ resvg: typeof Resvg; fonts: Uint8Array[] }> | undefined;

async function load() {
  const resvg: typeof Resvg = await import(RESVG);
  await import(`${FONT}/package.json`, { with: { type: "json" } });
  const bytesOf = (file: string) => Deno.readFile(new URL(import.meta.resolve(file)));
  await resvg.initWasm(await bytesOf(`${RESVG}/index_bg.wasm`));
  const faces = ["DejaVuSans.ttf", "DejaVuSans-Bold.ttf"];
  return { resvg, fonts: await Promise.all(faces.map((face) => bytesOf(`${FONT}/ttf/${face}`))) };
}

/** Draws an SVG as a PNG, so many pixels to one of the SVG's. */
export async function drawPng(svg: string, scale = 2): Promise<Uint8Array> {
  const { resvg, fonts } = await (ready ??= load());
  const picture = new resvg.Resvg(svg, {
    fitTo: { mode: "zoom", value: scale },
    font: { fontBuffers: fonts, defaultFontFamily: "DejaVu Sans", sansSerifFamily: "DejaVu Sans" },
  });
  try {
    return picture.render().asPng();
  } finally {
    picture.free();
  }
}
