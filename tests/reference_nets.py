"""Writes the SphereFace nets of reference_prototxt/: ``python tests/reference_nets.py``.

The nets differ only in how many residual units each stage has (SphereFace paper, table 2; in the
64-layer net the authors released, stage 2 has 7 units where the table has 8).
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "reference_prototxt"
WIDTHS = (64, 128, 256, 512)
UNITS = {
    4: (0, 0, 0, 0),
    10: (0, 1, 2, 0),
    20: (1, 2, 4, 1),
    36: (2, 4, 8, 2),
    64: (3, 7, 16, 3),
}

DATA = """\
layer {
  name: "data"
  type: "ImageData"
  top: "data"
  top: "label"
  transform_param {
    mean_value: 127.5
    mean_value: 127.5
    mean_value: 127.5
    scale: 0.0078125
    mirror: true
  }
  image_data_param {
    source: "data/CASIA-WebFace-112X96.txt"
    batch_size: 256
    shuffle: true
  }
}
"""

DEPLOY_INPUT = """\
input: "data"
input_dim: 1
input_dim: 3
input_dim: 112
input_dim: 96
"""

CONVOLUTION = """\
layer {{
  name: "{name}"
  type: "Convolution"
  bottom: "{bottom}"
  top: "{name}"
  param {{
    lr_mult: 1
    decay_mult: 1
  }}
  param {{
    lr_mult: {bias_lr}
    decay_mult: 0
  }}
  convolution_param {{
    num_output: {width}
    kernel_size: 3
    stride: {stride}
    pad: 1
    weight_filler {{
      {filler}
    }}
    bias_filler {{
      type: "constant"
      value: 0
    }}
  }}
}}
layer {{
  name: "{relu}"
  type: "PReLU"
  bottom: "{name}"
  top: "{name}"
}}
"""

SUM = """\
layer {{
  name: "{name}"
  type: "Eltwise"
  bottom: "{shortcut}"
  bottom: "{branch}"
  top: "{name}"
  eltwise_param {{
    operation: SUM
  }}
}}
"""

EMBEDDING = """\
layer {{
  name: "fc5"
  type: "InnerProduct"
  bottom: "{bottom}"
  top: "fc5"
  param {{
    lr_mult: 1
    decay_mult: 1
  }}
  param {{
    lr_mult: 2
    decay_mult: 0
  }}
  inner_product_param {{
    num_output: 512
    weight_filler {{
      type: "xavier"
    }}
    bias_filler {{
      type: "constant"
      value: 0
    }}
  }}
}}
"""

HEAD = """\
layer {
  name: "fc6"
  type: "MarginInnerProduct"
  bottom: "fc5"
  bottom: "label"
  top: "fc6"
  top: "lambda"
  param {
    lr_mult: 1
    decay_mult: 1
  }
  margin_inner_product_param {
    num_output: 10572
    type: QUADRUPLE
    weight_filler {
      type: "xavier"
    }
    base: 1000
    gamma: 0.12
    power: 1
    lambda_min: 5
    iteration: 0
  }
}
layer {
  name: "softmax_loss"
  type: "SoftmaxWithLoss"
  bottom: "fc6"
  bottom: "label"
  top: "softmax_loss"
}
"""


def convolution(stage: int, index: int, bottom: str) -> str:
    """One 3x3 convolution with its PReLU; the first of a stage halves height and width."""
    opens = index == 1
    return CONVOLUTION.format(
        name=f"conv{stage}_{index}",
        relu=f"relu{stage}_{index}",
        bottom=bottom,
        width=WIDTHS[stage - 1],
        stride=2 if opens else 1,
        bias_lr=2 if opens else 0,
        filler='type: "xavier"' if opens else 'type: "gaussian"\n      std: 0.01',
    )


def body(units: tuple[int, ...]) -> str:
    """The four stages and fc5, from blob ``data`` (N, 3, 112, 96) to ``fc5`` (N, 512)."""
    text, bottom = "", "data"
    for stage, count in enumerate(units, start=1):
        text += convolution(stage, 1, bottom)
        bottom = f"conv{stage}_1"
        for k in range(2, 2 + 2 * count, 2):
            branch, total = f"conv{stage}_{k + 1}", f"res{stage}_{k + 1}"
            text += convolution(stage, k, bottom) + convolution(stage, k + 1, f"conv{stage}_{k}")
            text += SUM.format(name=total, shortcut=bottom, branch=branch)
            bottom = total
    return text + EMBEDDING.format(bottom=bottom)


def file_names(layers: int) -> tuple[str, str]:
    """The train and the deploy net's file; 20 layers is the plain "sphereface"."""
    stem = "sphereface" if layers == 20 else f"sphereface_{layers}"
    return f"{stem}_model.prototxt", f"{stem}_deploy.prototxt"


def nets(layers: int) -> dict[str, str]:
    """File name → text of the train and the deploy net."""
    model, deploy = file_names(layers)
    name = f'name: "SpherefaceNet-{layers}"\n'
    middle = body(UNITS[layers])
    return {
        model: name + DATA + middle + HEAD,
        deploy: name + DEPLOY_INPUT + middle,
    }


SOLVER = """\
net: "code/sphereface_model.prototxt"

base_lr: 0.1
lr_policy: "multistep"
gamma: 0.1
stepvalue: 16000
stepvalue: 24000
stepvalue: 28000
max_iter: 28000

display: 100
momentum: 0.9
weight_decay: 0.0005
snapshot_prefix: "result/sphereface_model"

solver_mode: GPU
"""


def files() -> dict[str, str]:
    """Every file that this program owns, by name."""
    everything = {"sphereface_solver.prototxt": SOLVER}
    for layers in UNITS:
        everything.update(nets(layers))
    return everything


if __name__ == "__main__":
    for file_name, text in files().items():
        (FOLDER / file_name).write_text(text, encoding="utf-8", newline="\n")
