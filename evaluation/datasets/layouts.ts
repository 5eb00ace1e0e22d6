/** All layouts, and which of them a file has. */
import { InputError, show } from "../../engine/io/errors.ts";
import { counterFact, counterFactEasyEdit } from "./counterfact.ts";
import { easyEdit, knowEdit, wikiBio } from "./knowedit.ts";
import type { Fields, Layout } from "./layout.ts";
import { mquake } from "./mquake.ts";
import { convSent, known1000, lre, qaEdit, sanitation } from "./others.ts";
import { own } from "./own.ts";
import { ripple } from "./ripple.ts";
import { zsre, zsreOriginal } from "./zsre.ts";

/** The more particular before the more general: of two that fit equally well the first is taken. */
export const LAYOUTS: readonly Layout[] = [
  mquake,
  counterFact,
  ripple,
  zsre,
  zsreOriginal,
  knowEdit,
  wikiBio,
  convSent,
  sanitation,
  qaEdit,
  known1000,
  lre,
  counterFactEasyEdit,
  easyEdit,
  own,
];

/**
 * The layout that most of the sample has.
 * @param sample records from the start of a file
 * @param file the file's object, where it is one
 * @throws {InputError} naming the layouts known and the nearest one with the keys that are missing
 */
export function recogniseLayout(sample: readonly Fields[], file: Fields | undefined, name: string): Layout {
  const whole = file && LAYOUTS.find((layout) => layout.member && layout.recognise(file));
  if (whole) return whole;
  const votes = LAYOUTS.filter(({ member }) => !member).map((layout) => ({
    layout,
    count: sample.filter((record) => layout.recognise(record)).length,
  }));
  const best = votes.reduce((a, b) => b.count > a.count ? b : a);
  if (best.count > 0) return best.layout;
  const known = `Known are ${LAYOUTS.map((layout) => layout.name).join(", ")}`;
  throw new InputError(`${name} is in no known layout: ${nearest(sample[0] ?? {})}`, { hint: known });
}

function nearest(record: Fields): string {
  const keys = Object.keys(record);
  const has = keys.length
    ? `its records have ${keys.slice(0, 8).map(show).join(", ")}`
    : "its records are empty";
  const scored = LAYOUTS.map((layout) => {
    const missing = layout.keys.filter((key) => !keys.includes(key));
    return { layout, missing, share: 1 - missing.length / layout.keys.length };
  });
  const best = scored.reduce((a, b) => b.share > a.share ? b : a);
  if (best.share === 0) return `${has}, and none of the keys of any`;
  return `${has}; nearest is ${best.layout.name}, which also has ${best.missing.map(show).join(", ")}`;
}
