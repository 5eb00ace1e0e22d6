/**
 * SERAC's training in a folder, as train.ts has it for networks: the best editor so far is always there, a training
 * that was interrupted goes on to the very bytes that it would have come to, and one that diverges stops with step
 * and cause. It has parts of their own losses, and each begins where the one before it ended.
 */
import type { NamedNumbers } from "../editors/hypernetworks/file.ts";
import type { Numbers } from "../editors/hypernetworks/network.ts";
import { PartDivergedError, type Reached } from "../editors/serac/course.ts";
import { type SeracEditor, writeSerac } from "../editors/serac/file.ts";
import type { Progress, SeracReached, Session } from "../editors/serac/train.ts";
import { openTraining, saveState, type TrainingConfig } from "./folder.ts";

/** What people see while it runs. */
export interface SeracReport {
  part: Parameters<Progress>[0];
  done: number;
  total: number;
  loss?: number;
  /** The loss on what is never trained on, after this very step. */
  validation?: number;
  /** Seconds left to the part's last step at the pace so far. */
  left: number;
}

export interface SeracFolder {
  config: TrainingConfig;
  /** The maps that the counterfactual model adapts. */
  roles: readonly string[];
  out: string;
  resume: boolean;
  /** Steps from one saved state to the next. */
  saveEvery: number;
  onReport?: (report: SeracReport) => void;
}

/** What `training.safetensors` says beside its numbers. */
interface State {
  /** The course of the scope classifier, when it is ready. */
  scope?: Reached["course"];
  part?: Pick<Reached, "step" | "course">;
}

/**
 * Trains an editor by either objective.
 * @param train trainSerac or trainSeracEasyEdit
 * @throws {PartDivergedError} with step and cause when a value is not finite; the best editor so far stays
 * @throws {InputError} for a folder that it cannot go into
 */
export async function trainInFolder(
  { config, roles, out, resume, saveEvery, onReport }: SeracFolder,
  train: (session: Session) => Promise<SeracEditor>,
): Promise<{ editor: SeracEditor; path: string }> {
  const { folder, reached } = await openTraining<State>(out, config, resume);
  using _open = folder;
  const head = { method: config.method, base: config.base, roles: [...roles], shape: {} };
  let kept: string | undefined;
  const pace = paceOf(reached?.state.part?.step ?? 0);
  try {
    const editor = await train({
      reached: reached && reachedOf(reached),
      saveEvery,
      onSave: ({ scope, part }) => {
        const state: State = { scope: scope?.course, part: part && { step: part.step, course: part.course } };
        return saveState(folder, head, state, numbersOf({ scope, part }));
      },
      async onBest(editor) {
        await writeSerac(folder.editor, editor);
        kept = `${folder.editor} keeps the best one so far`;
      },
      onProgress: (part, done, total, loss, validation) =>
        onReport?.({ part, done, total, loss, validation, left: pace(part, done) * (total - done) }),
    });
    await writeSerac(folder.editor, editor);
    return { editor, path: folder.editor };
  } catch (error) {
    if (!(error instanceof PartDivergedError)) throw error;
    const earlier = reached?.state.part && (reached.state.scope || config.method !== "serac");
    if (!kept && earlier) kept = `${folder.editor} keeps the best one so far`;
    throw new PartDivergedError(error.part, error.step, error.why, kept);
  }
}

/** Seconds a step in this session, part by part; the first one begins at step `first`. */
function paceOf(first: number): (part: string, done: number) => number {
  let part: string | undefined, began = 0, ended = performance.now();
  return (now, done) => {
    if (now !== part) {
      if (part !== undefined && part !== "embeddings") first = 0;
      [part, began] = [now, ended];
    }
    ended = performance.now();
    return (ended - began) / 1000 / Math.max(1, done - (part === "embeddings" ? 0 : first));
  };
}

const PROJECTION = ["mean", "matrix", "bias"] as const;

function numbersOf({ scope, part }: SeracReached<Map<string, NamedNumbers>>): Map<string, NamedNumbers> {
  const projection = scope && PROJECTION.map((name): [string, NamedNumbers] => {
    const values = scope.projection[name];
    return [`projection ${name}`, { shape: [values.length], values }];
  });
  return new Map([...part?.numbers ?? [], ...projection ?? []]);
}

function reachedOf({ state, numbers }: { state: State; numbers: Numbers }): SeracReached {
  const values = (name: string) => numbers.get(`projection ${name}`) as Float32Array;
  const [mean, matrix, bias] = PROJECTION.map(values);
  return {
    scope: state.scope && { projection: { mean, matrix, bias }, course: state.scope },
    part: state.part && { ...state.part, numbers },
  };
}
