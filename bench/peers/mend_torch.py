"""MEND edits by the authors' own code (eric-mitchell/mend): the peer of our MEND bench. `higher` and `hydra` are
replaced by the few lines of them in use, as for the fixtures.

    python bench/peers/mend_torch.py --gguf FILE --mend DIR --network FILE --layers 27,28,29 [--rank 1920]

The first line of output says which PyTorch it is; then a line of JSON for a line of JSON: {"prompt": ids, "target":
ids} -> seconds, CPU seconds, the edit's loss before it, and the norm of each map's change.
"""

import argparse
import json
import sys
import types
from pathlib import Path
from time import perf_counter, process_time

import threads  # noqa: F401, before torch
import torch
from safetensors.torch import load_file
from smollm2 import load

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "fixtures"))
import mend as fixtures  # noqa: E402


def numbers_into(mend, path):
    """Our numbers into their modules, by the fixtures' names."""
    given = load_file(path)
    with torch.no_grad():
        for name, p in mend.named_parameters():
            if not name.startswith("model."):
                p.copy_(given[fixtures.ours(name)].view(p.shape))
        for shape, transform in mend.mend.items():
            group = "x".join(shape.strip("()").split(", "))
            transform.u_mean, transform.v_mean = given[f"{group}.u.mean"], given[f"{group}.delta.mean"]
            transform.u_std = given[f"{group}.u.scatter"].sqrt()
            transform.v_std = given[f"{group}.delta.scatter"].sqrt()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--mend", required=True)
    parser.add_argument("--network", required=True)
    parser.add_argument("--layers", required=True)
    parser.add_argument("--rank", type=int, default=1920)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    fixtures.stub()
    sys.path.insert(0, args.mend)
    from algs import mend as mend_module

    model, _ = load(args.gguf)
    names = [f"model.layers.{n}.mlp.{m}.weight" for n in args.layers.split(",")
             for m in ("gate_proj", "up_proj", "down_proj")]
    # Only the edited weights need gradients: nothing is kept below them.
    for name, p in model.named_parameters():
        p.requires_grad_(name in names)
    net = types.SimpleNamespace(
        one_sided=False, n_hidden=1, hidden_dim=None, init="id", norm=True, combine=True, x_only=False,
        delta_only=False, act="relu", rank=args.rank, mlp_class="IDMLP", shared=True)
    config = types.SimpleNamespace(edit_lr=1e-4, mend=net, model=types.SimpleNamespace(name="model", inner_params=names))
    mend = mend_module.MEND(model, config, None)
    numbers_into(mend, args.network)
    mend.eval()
    call = model.forward
    # Their model wrapper drops what it does not know; transformers would compute a loss from labels.
    model.forward = lambda **kw: call(**{k: v for k, v in kw.items() if k != "labels"})
    print(json.dumps(dict(torch=torch.__version__)), flush=True)
    base = {n: p for n, p in model.named_parameters() if n in names}
    for line in sys.stdin:
        task = json.loads(line)
        batch = fixtures.batch(task["prompt"], task["target"])
        losses = []
        judge = mend.edit_loss_fn

        def watched(*given):
            found = judge(*given)
            losses.append(found["nll"].item())
            return found

        mend.edit_loss_fn = watched
        start, cpu = perf_counter(), process_time()
        edited, _ = mend.edit(batch)
        seconds, cpu_seconds = perf_counter() - start, process_time() - cpu
        mend.edit_loss_fn = judge
        changed = dict(edited.model.named_parameters())
        norms = [(changed[n] - base[n]).norm().item() for n in names]
        print(json.dumps(dict(seconds=seconds, cpu_seconds=cpu_seconds, loss=losses[0], norms=norms)), flush=True)


if __name__ == "__main__":
    main()
