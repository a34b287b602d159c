"""Documented and random launch scripts: the arguments that are read are those that bash hands over."""

import random
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from mm_config.importing.facts import Fact
from mm_config.importing.parsers.shell_text import read_shell

DATA = Path(__file__).parent / "data"

PRETRAIN_HIGH = """\
37 --nproc_per_node 8
38 --nnodes 1
39 --node_rank 0
40 --master_addr localhost
41 --master_port 6000
45 --tensor-model-parallel-size 1
46 --pipeline-model-parallel-size 1
47 --virtual-pipeline-model-parallel-size 1
48 --context-parallel-size 1
49 --context-parallel-algo ulysses_cp_algo
50 --micro-batch-size 1
51 --global-batch-size 8
52 --num-workers 8
53 --lr 1e-5
54 --min-lr 1e-5
55 --adam-beta1 0.9
56 --adam-beta2 0.999
57 --adam-eps 1e-8
58 --lr-decay-style constant
59 --weight-decay 1e-2
60 --lr-warmup-init 0
61 --lr-warmup-iters 0
62 --clip-grad 1.0
63 --train-iters 5000
64 --no-gradient-accumulation-fusion
65 --no-load-optim
66 --no-load-rng
67 --no-save-optim
68 --no-save-rng
69 --bf16
70 --distributed-timeout-minutes 20
71 --use-fused-rmsnorm
72 --use-torch-fsdp2
73 --untie-embeddings-and-output-weights
74 --fsdp2-config-path ./examples/wan2.2/A14B/fsdp2_config.yaml
75 --optimizer-selection fused_torch_adamw
76 --use-cpu-initialization
80 --mm-data ./examples/wan2.2/A14B/t2v/data.json
81 --mm-model ./examples/wan2.2/A14B/t2v/pretrain_model_high.json
82 --mm-tool ./mindspeed_mm/tools/tools.json
86 --log-interval 1
87 --save-interval 10000
88 --eval-interval 10000
89 --eval-iters 10
90 --load ./ckpt/mm_path/Wan2.2-T2V-A14B-mm/transformer/
91 --save path to save your high noise expert wandit weight
92 --ckpt-format torch_dcp
101 --distributed-backend nccl
"""

CUSTOM_PRETRAIN = """\
19 --nproc_per_node 8
20 --nnodes 1
21 --node_rank 0
22 --master_addr localhost
23 --master_port 6007
26 --micro-batch-size 1
27 --global-batch-size 8
28 --num-workers 8
29 --lr 1e-5
30 --min-lr 1e-5
31 --adam-beta1 0.9
32 --adam-beta2 0.999
33 --adam-eps 1e-8
34 --lr-decay-style constant
35 --weight-decay 1e-2
36 --lr-warmup-init 0
37 --lr-warmup-iters 0
38 --clip-grad 1.0
39 --train-iters 5000
40 --no-gradient-accumulation-fusion
41 --use-torch-fsdp2
42 --fsdp2-config-path ./examples/custom_model/fsdp2_config.yaml
43 --untie-embeddings-and-output-weights
46 --mm-data ./examples/custom_model/data.json
47 --mm-model ./examples/custom_model/model.json
48 --mm-tool ./mindspeed_mm/tools/tools.json
51 --log-interval 1
52 --save-interval 10000
53 --eval-interval 10000
54 --eval-iters 10
55 --ckpt-format torch_dcp
63 --distributed-backend nccl
"""

INFERENCE = """\
28 --nproc_per_node 1
29 --nnodes 1
30 --node_rank 0
31 --master_addr localhost
32 --master_port 6000
35 --mm-model examples/wan2.2/A14B/t2v/inference_model.json
39 --tensor-model-parallel-size 1
40 --pipeline-model-parallel-size 1
41 --context-parallel-size 1
42 --context-parallel-algo ulysses_cp_algo
43 --micro-batch-size 1
44 --global-batch-size 1
45 --lr 5e-6
46 --min-lr 5e-6
47 --train-iters 5010
48 --weight-decay 0
49 --clip-grad 0.0
50 --adam-beta1 0.9
51 --adam-beta2 0.999
52 --no-gradient-accumulation-fusion
53 --no-load-optim
54 --no-load-rng
55 --no-save-optim
56 --no-save-rng
57 --bf16
58 --load ./ckpt/mm_path/Wan2.2-T2V-A14B-mm/transformer/
"""

ARITHMETIC = (
    "${0}{2}{1}",
    "{0} {2} ${{{1}}} * -2",
    "-{0} / 3 + {1} * 0",
    "{0} {2} {1} / 5",
    "{0} - -{1} / 2 {2} 3",
)
TEXTS = (
    '"a ${{{0}}}b"',
    "'a ${0}'",
    '"x \\\n  ${{{0}}} \\\n"',
    "a\\ b${0}",
    '${{NONE:-"c d"}}${{{0}:-e}}',
    '"\\"${0}\\" \\\\ \\$ \\q"',
    "${{NONE:-x y}}'${0}'",
    '"\n  one\n  two\n"',
    "",
)
ARGUMENTS = ("${0}", '"${0}"', "${{{0}}}", "a${0}", '"$N0 "${0}')


def words(fact: Fact) -> list[str]:
    if fact.value is True:
        return [fact.path]
    values = fact.value if isinstance(fact.value, tuple) else (fact.value,)
    return [fact.path, *(str(value) for value in values)]


def values(facts: tuple[Fact, ...]) -> dict[str, object]:
    return {fact.path: fact.value for fact in facts}


@pytest.mark.parametrize(
    ("name", "entry", "expected"),
    [
        ("seed_pretrain_high.sh", "pretrain_sora.py", PRETRAIN_HIGH),
        ("seed_custom_pretrain.sh", "pretrain_custom.py", CUSTOM_PRETRAIN),
        ("seed_inference.sh", "inference_sora.py", INFERENCE),
    ],
)
def test_every_flag_of_the_documented_scripts_is_read_with_its_line(
    name: str, entry: str, expected: str
) -> None:
    script = read_shell(DATA / name)
    assert (script.program, script.entry) == ("torchrun", entry)
    table = "".join(f"{fact.line} {' '.join(words(fact))}\n" for fact in script.launch)
    assert table == expected
    assert {fact.source.kind for fact in script.launch} == {"shell flag"}


def test_variables_exports_and_notes_of_the_documented_training_script() -> None:
    script = read_shell(DATA / "seed_pretrain_high.sh")
    found = values(script.assignments)
    assert [(fact.path, fact.value, fact.line) for fact in script.exports] == [
        ("CUDA_DEVICE_MAX_CONNECTIONS", "2", 4),
        ("ASCEND_SLOG_PRINT_TO_STDOUT", "0", 5),
        ("ASCEND_GLOBAL_LOG_LEVEL", "3", 6),
        ("TASK_QUEUE_ENABLE", "1", 7),
        ("COMBINED_ENABLE", "1", 8),
        ("CPU_AFFINITY_CONF", "1", 9),
        ("HCCL_CONNECT_TIMEOUT", "1200", 10),
        ("PYTORCH_NPU_ALLOC_CONF", "expandable_segments:True", 11),
    ]
    assert (found["WORLD_SIZE"], found["DP"], found["GBS"]) == ("8", "8", "8")
    assert found["SAVE_PATH"] == "path to save your high noise expert wandit weight"
    assert found["logfile"] == "wan_high_$(date +%Y%m%d)_$(date +%H%M%S)"
    assert {fact.source.kind for fact in script.exports} == {"environment variable"}
    assert {fact.source.kind for fact in script.assignments} == {"shell variable"}
    assert [f"{note.line}: {note.text}" for note in script.notes] == [
        "2: source /usr/local/Ascend/cann/set_env.sh: not read; what it sets is not known here",
        "91: --save gets 9 words: SAVE_PATH holds spaces and is split at them",
        "95: logfile: $(date +%Y%m%d) is known only when the script runs",
        "96: mkdir -p logs: not read",
        "102: 2>&1 | tee logs/train_${logfile}.log: not read, nor is what follows the launch",
    ]


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash to compare with")


def arguments_by_bash(script: Path, folder: Path) -> list[str]:
    """The arguments that a launch script hands to torchrun, which here writes them down."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    torchrun = bin_folder / "torchrun"
    torchrun.write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" > {shlex.quote(str(folder / "arguments"))}\n')
    torchrun.chmod(0o755)
    environment = {"PATH": f"{bin_folder}:/usr/bin:/bin"}
    command = ["bash", str(script)]
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False, timeout=60)
    return (folder / "arguments").read_text().split("\0")[:-1]


def arguments_as_read(script: Path) -> list[str]:
    read = read_shell(script)
    return [word for fact in read.launch for word in words(fact)]


@needs_bash
@pytest.mark.parametrize("name", ["seed_pretrain_high.sh", "seed_custom_pretrain.sh", "seed_inference.sh"])
def test_bash_hands_over_the_arguments_that_were_read_from_the_documented_scripts(
    name: str, tmp_path: Path
) -> None:
    entry = read_shell(DATA / name).entry
    by_bash = [word for word in arguments_by_bash(DATA / name, tmp_path) if word != entry]
    assert arguments_as_read(DATA / name) == by_bash


def random_script(rng: random.Random) -> str:
    """Assignments of every kind that is read, each of earlier ones, and a launch of all of them."""
    lines = ["N0=8"]
    numbers, names = ["N0"], ["N0"]
    for index in range(1, rng.randint(2, 9)):
        if rng.random() < 0.5:
            left, right = rng.choice(numbers), rng.choice(numbers)
            form = rng.choice(ARITHMETIC)
            lines.append(f"N{index}=$(({form.format(left, right, rng.choice('+-*'))}))")
            numbers.append(f"N{index}")
            names.append(f"N{index}")
        else:
            form = rng.choice(TEXTS)
            lines.append(f"{rng.choice(['', 'export '])}T{index}={form.format(rng.choice(names))} # note")
            names.append(f"T{index}")
    arguments = [f"--{name} {rng.choice(ARGUMENTS).format(name)}" for name in names]
    launch = " \\\n  ".join(["torchrun train.py --first", *arguments, "> log 2>&1"])
    return "\n".join([*lines, launch, ""])


@needs_bash
@pytest.mark.parametrize("count", [40, pytest.param(1_000, marks=pytest.mark.slow)])
def test_bash_hands_over_the_arguments_that_were_read_from_random_scripts(count: int, tmp_path: Path) -> None:
    rng = random.Random(count)
    for _ in range(count):
        file = tmp_path / "random.sh"
        file.write_text(random_script(rng))
        assert arguments_as_read(file) == arguments_by_bash(file, tmp_path)[1:], file.read_text()
