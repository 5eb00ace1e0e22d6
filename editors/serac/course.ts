/**
 * The course of one part of SERAC's training: steps, a look at the loss every so often, validations, and the best
 * parameters so far. Everything that it goes on from can be read and given back, so that a training that was
 * interrupted comes to the very bits that it would have come to.
 */
import { GpuError } from "../../engine/gpu/errors.ts";
import type { Gpu } from "../../engine/gpu/device.ts";
import type { Tensor } from "../../engine/tensor/tensor.ts";
import { writeTensor } from "../../engine/tensor/transfer.ts";
import type { NamedNumbers } from "../hypernetworks/file.ts";
import { readNumbers } from "../hypernetworks/learner.ts";
import type { Numbers as NumbersByName } from "../hypernetworks/network.ts";
import type { Optimiser } from "./adam.ts";

/** How it went: the loss of every look, and of every validation. */
export interface Course {
  losses: { step: number; loss: number }[];
  validations: { step: number; loss: number }[];
  /** The step whose parameters were kept; 0 is the start. */
  best: number;
}

/** How far it is: all that it goes on from. */
export interface Reached<Numbers = NumbersByName> {
  /** Steps made. */
  step: number;
  course: Course;
  /** Parameters, the best ones, moments and clock. */
  numbers: Numbers;
}

/** One part in training. */
export interface Part {
  /** For sentences: "scope classifier". */
  name: string;
  optimiser: Optimiser;
  /** f32 [1, 1], of the last step. */
  loss: Tensor;
  /** Makes a step, the first one being 0. Does not wait. */
  step(index: number): void;
  /** The loss on what is kept for validation. */
  held(): Promise<number>;
}

/** When to look, to validate, to save and to end. */
export interface Schedule {
  steps: number;
  val_interval: number;
  /** Validations without a better one after which training ends; without it, it never does. */
  patience?: number;
  /** Where an earlier session was. */
  reached?: Reached;
  /** Steps between two calls of `onSave`. */
  saveEvery?: number;
  onSave?: (reached: Reached<Map<string, NamedNumbers>>) => Promise<void>;
  /** The parameters are the best so far. */
  onBest?: (course: Course) => Promise<void>;
  onProgress?: (done: number, total: number, loss: number, validation?: number) => void;
}

/** Steps between two looks at the loss. */
const LOOK = 10;
/** What the names of the best parameters begin with. */
const BEST = "best ";

/** A training that met a value that is not finite. */
export class PartDivergedError extends GpuError {
  /** @param kept what is left of the training, a clause */
  constructor(readonly part: string, readonly step: number, readonly why: string, kept?: string) {
    super(
      `Training of the ${part} stopped at step ${step}: ${why} is not finite${kept ? `; ${kept}` : ""}`,
      "Lower its learning rate",
    );
  }
}

/**
 * Trains a part to the end; its parameters are then the best ones.
 * @throws {PartDivergedError} with step and cause when a value is not finite
 */
export async function follow(gpu: Gpu, part: Part, schedule: Schedule): Promise<Course> {
  const { steps, val_interval, patience = Infinity, saveEvery = Infinity, reached } = schedule;
  const { optimiser } = part;
  const own = new Map(optimiser.parameters.map((t) => [t.label, t]));
  const all = new Map([...own, ...optimiser.state]);
  const course: Course = reached ? structuredClone(reached.course) : { losses: [], validations: [], best: 0 };
  if (reached) restore(gpu, own, reached.numbers, BEST);
  let best = await readNumbers({ gpu }, own);
  if (reached) restore(gpu, all, reached.numbers);
  const due = (every: number, done: number) => done % every === 0 || done === steps;
  const ended = (done: number) => done >= steps || done - course.best >= patience * val_interval;
  for (let done = reached?.step ?? 0; !ended(done);) {
    part.step(done++);
    const [validates, saves] = [due(val_interval, done), due(saveEvery, done)];
    if (!due(LOOK, done) && !validates && !saves) continue;
    const { loss, stopped } = await optimiser.look(part.loss);
    if (stopped) throw new PartDivergedError(part.name, stopped.step, stopped.why);
    if (due(LOOK, done) || validates) course.losses.push({ step: done, loss });
    const validation = validates ? await part.held() : undefined;
    if (validation !== undefined) {
      if (!Number.isFinite(validation)) {
        throw new PartDivergedError(part.name, done, "the loss of its validation");
      }
      const least = Math.min(...course.validations.map(({ loss }) => loss));
      course.validations.push({ step: done, loss: validation });
      if (validation < least) {
        course.best = done;
        best = await readNumbers({ gpu }, own);
        await schedule.onBest?.(course);
      }
    }
    if (schedule.onSave && (saves || validates)) {
      const kept = [...best].map(([name, values]): [string, NamedNumbers] => [BEST + name, values]);
      const numbers = new Map([...await readNumbers({ gpu }, all), ...kept]);
      await schedule.onSave({ step: done, course, numbers });
    }
    schedule.onProgress?.(done, steps, loss, validation);
  }
  for (const [name, tensor] of own) writeTensor(gpu, tensor, best.get(name)!.values);
  return course;
}

function restore(
  gpu: Gpu,
  tensors: ReadonlyMap<string, Tensor>,
  numbers: NumbersByName,
  prefix = "",
): void {
  for (const [name, tensor] of tensors) {
    const values = numbers.get(prefix + name);
    if (!values) throw new GpuError(`The state of training lacks ${prefix + name}`);
    writeTensor(gpu, tensor, values);
  }
}
