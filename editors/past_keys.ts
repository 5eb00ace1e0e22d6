/**
 * The update that leaves the keys of earlier edits as they are: K = [K_past, K], R = [0, R] in the family's one formula
 * (guide sections 0, 5.2 and 8). Past keys are those of the edited model, taken after each edit.
 */
import { GrownGram } from "../engine/linalg/grown_gram.ts";
import type { EditMemory } from "./memory.ts";
import { keysName, type LayerProblem, type LayerUpdate } from "./spread.ts";

/** M and λ of the formula. */
interface Metric {
  /** Tells systems apart that one memory may be asked for. */
  name: string;
  lambda: number;
  /** M K of `count` keys one after another. */
  times(keys: Float64Array, count: number): Promise<Float64Array>;
}

/** A Gram system and how many parts of the memory are in it. */
interface Grown {
  gram: GrownGram;
  parts: number;
}

/**
 * ΔW = R Bᵀ with B the current columns of M[K_past, K] (λI + [K_past, K]ᵀM[K_past, K])⁻¹: as many ranks as there are
 * current edits, however many there were before.
 */
export async function updateBesidePast<H>(
  { layer, n, keys, residuals, memory }: LayerProblem<H>,
  metric: Metric,
): Promise<LayerUpdate> {
  const f = keys.length / n;
  const gram = await gramOf(memory, layer, f, metric);
  const past = gram.n;
  try {
    gram.append(keys, await metric.times(keys, n), n);
    const identity = new Float64Array(n * n);
    for (let i = 0; i < n; i++) identity[i * n + i] = 1;
    const { left: inverse, right: mKeys } = gram.solve(identity, n);
    const columns = new Float64Array(n * f);
    for (let j = 0; j < past + n; j++) {
      for (let i = 0; i < n; i++) {
        const v = inverse[j * n + i];
        for (let c = 0; c < f; c++) columns[i * f + c] += v * mKeys[j * f + c];
      }
    }
    return { left: residuals, right: columns };
  } finally {
    gram.truncate(past);
  }
}

/** How many keys of earlier edits a layer remembers. */
export function rememberedKeys(memory: EditMemory | undefined, layer: number): number {
  return (memory?.parts ?? []).reduce((sum, part) => sum + (part.get(keysName(layer))?.rows ?? 0), 0);
}

/** The system of all remembered keys: kept with the memory, parts that came since are appended. */
async function gramOf(
  memory: EditMemory | undefined,
  layer: number,
  f: number,
  { name, lambda, times }: Metric,
): Promise<GrownGram> {
  if (!memory) return new GrownGram(f, lambda);
  const make = (): Grown => ({ gram: new GrownGram(f, lambda), parts: 0 });
  const grown = memory.derived(`${keysName(layer)}: ${name}`, make);
  while (grown.parts < memory.parts.length) {
    const keys = memory.parts[grown.parts].get(keysName(layer));
    if (keys) {
      const values = Float64Array.from(keys.values);
      grown.gram.append(values, await times(values, keys.rows), keys.rows);
    }
    grown.parts++;
  }
  return grown.gram;
}
