"""``port demo``: train on rendered faces and show what was learnt."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from port.commands.options import HELP

if TYPE_CHECKING:
    from port.sample_faces import SampleSet
    from verify.accuracy import Verification

NET = "reference_prototxt/sphereface_4_model.prototxt"
SEED = 1
SOLVER = """# written by 'port demo': SphereFace's solver, shortened
net: "sphereface_4_model.prototxt"
base_lr: 0.01
lr_policy: "multistep"
gamma: 0.1
stepvalue: {first}
stepvalue: {second}
max_iter: {iterations}
display: {display}
momentum: 0.9
weight_decay: 0.0005
solver_mode: GPU
snapshot_prefix: "{prefix}"
"""
NEXT = """
Next, on real faces: crops of 112x96 aligned as SphereFace's are, in a list of 'path label' lines.
  port train reference_prototxt/sphereface_model.prototxt --source LIST --num-classes auto
  port info {weights}
  port --help
"""


@click.command(context_settings=HELP)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder for faces, solver and snapshots.",
)
@click.option("--iterations", type=click.IntRange(10), default=300, show_default=True)
def demo(out: Path, iterations: int) -> None:
    """Render faces, train the 4-layer SphereFace on them, verify people it has not seen.

    Needs no download and no GPU; takes two or three minutes on two cores.

    \b
    Examples:
      port demo
      port demo --out elsewhere --iterations 1000
    """
    from port.sample_faces import write_set

    begin = time.perf_counter()
    click.echo(f"Rendering sample faces into {out / 'faces'} …")
    faces = write_set(out / "faces")
    click.echo(f"  {faces.images} pictures in {time.perf_counter() - begin:.0f} s")
    before = _verify(faces, None)
    click.echo(f"Untrained net on people held out: {100 * before.result.mean:.2f} %\n")
    weights = _train(faces, out, iterations)
    after = _verify(faces, weights)
    click.echo(f"\nTrained net on people held out:\n{after.fold_table()}")
    click.echo(
        f"accuracy on {len(after.pairs)} pairs of people it has not seen: "
        f"{100 * before.result.mean:.2f} % before, {100 * after.result.mean:.2f} % after"
    )
    click.echo(NEXT.format(weights=weights))


def _train(faces: SampleSet, out: Path, iterations: int) -> Path:
    """Run the public command, as printed; returns the caffemodel."""
    from port.commands.train import train

    solver = out / "sphereface_4_solver.prototxt"
    solver.write_text(
        SOLVER.format(
            first=iterations * 6 // 10,
            second=iterations * 85 // 100,
            iterations=iterations,
            display=max(1, iterations // 10),
            prefix=(out / "sphereface_4").as_posix(),
        )
    )
    arguments = [NET, "--solver", str(solver), "--source", str(faces.train_list)]
    arguments += ["--num-classes", "auto", "--batch-size", "32", "--seed", str(SEED)]
    click.echo("$ port train " + shlex.join(arguments))
    train.main(arguments, prog_name="port train", standalone_mode=False)
    return out / f"sphereface_4_iter_{iterations}.caffemodel"


def _verify(faces: SampleSet, weights: Path | None) -> Verification:
    """evaluation.m's protocol on the held-out pairs; without weights, of the train net's start."""
    import torch

    from port.net import load_net
    from port.schema import data_folder
    from verify.accuracy import verify_pairs
    from verify.embed import net_forward, net_shape
    from verify.pairs import read_pairs

    nets = data_folder("reference_prototxt")
    net = load_net(nets / "sphereface_4_deploy.prototxt", weights)
    if weights is None:
        torch.manual_seed(SEED)
        train_net = nets / Path(NET).name
        net.share_weights(load_net(train_net, open_data=False, input_shape=(3, 112, 96)))
    pairs = read_pairs(faces.pairs)
    return verify_pairs(pairs, faces.held_out, net_forward(net), net_shape(net))
