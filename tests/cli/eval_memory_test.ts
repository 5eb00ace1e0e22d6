/**
 * Methods that remember earlier edits, in runs whose edits stay: killed and resumed, a run ends as one that was not,
 * bit for bit. Fewer steps and contexts make the edits quick. What the model says at length is no part of it: that
 * goes on after a kill in eval_test.ts.
 */
import { endsTheSame, inFolder } from "./_eval.ts";
import { QUICK } from "./_run.ts";

for (
  const [method, limit, ...more] of [
    ["memit-seq", "3", ...QUICK],
    ["alphaedit", "4", "--batch", "2", ...QUICK],
    ["ultraedit", "4", "--batch", "2"],
    ["grace", "3", "--set", "n_iter=5"],
    // Three edits have a side memory each; the third one, after the kill, merges them.
    ["wise", "3", "--set", "n_iter=2", "--set", "save_freq=1", "--set", "merge_freq=3", ...QUICK.slice(2)],
    ["melo", "3", "--set", "num_iter=3"],
    // Three edits of 128 ranks are more than c_attn [768, 256] can use: the second one folds.
    ["lora", "3", "--set", "rank=128", "--set", "layers=[2]", "--set", "num_steps=2"],
    [
      "t-patcher",
      "3",
      "--set",
      "max_edit_step=4",
      "--set",
      "start_val=2",
      "--set",
      "check_val_every=2",
      "--set",
      "memory_size=100",
    ],
    ["serac", "3"],
  ]
) {
  Deno.test(
    `${method} ends the same after a kill, on the weights and memories as earlier edits left them`,
    inFolder((folder) =>
      endsTheSame(folder, [
        "--method",
        method,
        "--limit",
        limit,
        "--sequential",
        "--metrics",
        "none",
        ...more,
      ])
    ),
  );
}
