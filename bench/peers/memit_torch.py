"""MEMIT in PyTorch, spending what the authors' code spends, for bench/peers/memit.ts: a line of JSON a line of JSON.

As in kmeng01/memit. A target (compute_z.py): the contexts and the KL prompt of one edit as one padded batch,
every step a full forward of all layers and positions, final norm and head a second time over all positions of
the contexts, delta added to the block's output by a hook, Adam, the clamp, stop below 0.05. Layers up to the
edited one are outside the graph because every weight is frozen, there as here. A layer (memit_main.py,
compute_ks.py): full forwards of all contexts of all edits for the keys and of the bare prompts for the current
value, then a solve in double precision. Batches of the latter have 64 sequences, not 512, whose logits would
not fit here.

    python bench/peers/memit_torch.py --gguf FILE --threads 2

Tasks: {"task": "target", "edit"} → seconds, losses; {"task": "layer", "edits", "zs", "layer", "left", "rho"} → seconds of
keys, current values and solve, and the norm and first row of the update. An edit is {"contexts", "subject_last",
"target", "kl"}; C of a layer is made up: rho^|i-j|, as the other side has it.
"""

import argparse
import json
import sys
from time import perf_counter, process_time

import threads  # noqa: F401, before torch
import torch
import torch.nn.functional as F

import smollm2
from rome_torch import Clock, padded

BATCH = 64


def hidden(out):
    return out[0] if isinstance(out, tuple) else out


def target(model, pad, edit, hp):
    """(delta, losses of each step) of one edit."""
    contexts, wanted_ids, kl = edit["contexts"], edit["target"], edit["kl"]
    batch = padded([c + wanted_ids[:-1] for c in contexts] + [kl["ids"]], pad)
    count = len(contexts)
    wanted = torch.full((count, batch["input_ids"].shape[1]), -100)
    for i, c in enumerate(contexts):
        end = len(c) + len(wanted_ids) - 1
        wanted[i, end - len(wanted_ids):end] = torch.tensor(wanted_ids)
    mask = (wanted != -100).float()
    gathered = torch.where(wanted != -100, wanted, 0).unsqueeze(2)
    lookups = edit["subject_last"] + [kl["subject_last"]]
    delta = torch.zeros(model.config.hidden_size, requires_grad=True)
    initial = kl_initial = last = None

    def add_delta(_module, _args, out):
        nonlocal initial
        h = hidden(out)
        if initial is None:
            initial = h[0, lookups[0]].detach().clone()
        for i, at in enumerate(lookups):
            h[i, at, :] += delta
        return out

    def keep(_module, _args, out):
        nonlocal last
        last = hidden(out)

    blocks = model.model.layers
    hooks = [blocks[hp["layer"]].register_forward_hook(add_delta), blocks[-1].register_forward_hook(keep)]
    optimiser = torch.optim.Adam([delta], lr=hp["v_lr"])
    losses = []
    for step in range(hp["v_num_grad_steps"]):
        optimiser.zero_grad()
        logits = model(**batch).logits
        kl_log_probs = F.log_softmax(logits[-1:, lookups[-1]], dim=1)
        if kl_initial is None:
            kl_initial = kl_log_probs.detach().clone()
        log_probs = torch.log_softmax(model.lm_head(model.model.norm(last[:count])), dim=2)
        picked = torch.gather(log_probs, 2, gathered).squeeze(2)
        nll = (-(picked * mask).sum(1) / len(wanted_ids)).mean()
        divergence = hp["kl_factor"] * F.kl_div(kl_initial, kl_log_probs, log_target=True, reduction="batchmean")
        decay = hp["v_weight_decay"] * (delta.norm() / initial.norm() ** 2)
        loss = nll + divergence + decay
        losses.append([float(x.detach()) for x in (loss, nll, divergence, decay)])
        if losses[-1][0] < 5e-2 or step == hp["v_num_grad_steps"] - 1:
            break
        loss.backward()
        optimiser.step()
        largest = hp["clamp_norm_factor"] * initial.norm()
        if delta.norm() > largest:
            with torch.no_grad():
                delta[...] = delta * largest / delta.norm()
    for hook in hooks:
        hook.remove()
    return delta.detach(), losses, batch["input_ids"].numel()


def captured(model, pad, module, sequences, places, of):
    """What `of` finds of a module's input and output at a place a sequence, by full forwards, [n, width]."""
    found = []

    def keep(_module, args, out):
        at = torch.arange(len(now)), torch.tensor(now)
        found.append(of(args, out)[at].clone())

    handle = module.register_forward_hook(keep)
    with torch.no_grad():
        for i in range(0, len(sequences), BATCH):
            now = places[i:i + BATCH]
            model(**padded(sequences[i:i + BATCH], pad))
    handle.remove()
    return torch.cat(found)


def made_up_statistics(width, rho):
    """C of every layer."""
    index = torch.arange(width)
    return rho ** (index[:, None] - index[None, :]).abs().double()


def layer_update(model, pad, task, C, hp, clock):
    """dW of one layer from the targets z of all edits."""
    edits, layer = task["edits"], task["layer"]
    blocks = model.model.layers
    with clock.phase("keys"):
        sequences = [c for e in edits for c in e["contexts"]]
        places = [i for e in edits for i in e["subject_last"]]
        keys = captured(model, pad, blocks[layer].mlp.down_proj, sequences, places, lambda args, out: args[0])
        keys = keys.reshape(len(edits), -1, keys.shape[1])
        keys = (keys[:, 0] + keys[:, 1:].mean(1)) / 2
    with clock.phase("current"):
        bare = [e["contexts"][0] for e in edits]
        now = captured(model, pad, blocks[hp["layer"]], bare, [e["subject_last"][0] for e in edits],
                       lambda args, out: hidden(out))
    with clock.phase("solve"):
        K = keys.T.double()
        X = torch.linalg.solve(hp["mom2_update_weight"] * C + K @ K.T, K)
        R = (torch.tensor(task["zs"]) - now).T.double() / task["left"]
        return (R @ X.T).float()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    start = perf_counter()
    model, tokenizer = smollm2.load(args.gguf)
    print(json.dumps(dict(torch=torch.__version__, load=perf_counter() - start)), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        hp, clock = task["hparams"], Clock()
        C = made_up_statistics(model.config.intermediate_size, task.get("rho", 0))
        start, cpu = perf_counter(), process_time()
        if task["task"] == "target":
            delta, losses, places = target(model, tokenizer.pad_token_id, task["edit"], hp)
            answer = dict(losses=losses, places=places, norm=float(delta.norm()))
        else:
            update = layer_update(model, tokenizer.pad_token_id, task, C, hp, clock)
            answer = dict(phases=clock.seconds, norm=float(update.norm()), row=update[0].tolist())
        seconds, cpu = perf_counter() - start, process_time() - cpu
        print(json.dumps(dict(seconds=seconds, cpu_seconds=cpu, **answer)), flush=True)


if __name__ == "__main__":
    main()
