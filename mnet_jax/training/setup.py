"""From a config to a run that only has to be stepped: everything that happens before the first step, in order."""

import dataclasses
import os
from collections.abc import Callable

import flax.linen as nn
import jax
import ml_collections
import optax
from etils import epath

from mnet_jax.config import difference, from_json, to_json, validate
from mnet_jax.data import manifest
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.data.dataset import Dataset
from mnet_jax.files import Lock, check_bucket, write_whole
from mnet_jax.tasks.task import Task
from mnet_jax.trained import annotations, build_model, build_task
from mnet_jax.training import batches, checkpoint, initial
from mnet_jax.training.batches import BatchSource, Embedded, EmbeddingBatches, ImageBatches
from mnet_jax.training.checkpoint import Checkpoints
from mnet_jax.training.embeddings import Extractor, HeadOnly, check_network
from mnet_jax.training.evaluation import Evaluator
from mnet_jax.training.optimizer import make_optimizer, make_schedule
from mnet_jax.training.parallel import AXIS, Devices, Stages, agree
from mnet_jax.training.reporting.reporter import Reporter
from mnet_jax.training.run_plan import RunPlan, check_norms, derive, due
from mnet_jax.training.saved import Saved
from mnet_jax.training.selection import Patience
from mnet_jax.training.state import TrainState, Tree, new_state
from mnet_jax.training.step import make_train_step

# What may change between two starts of one run: nothing of it touches the weights.
FREE_FIELDS = (
    "data.data_dir",
    "data.manifest",
    "data.max_unreadable",
    "train.embedding_dir",
    "train.num_devices",
    "checkpoint.every_epochs",
    "checkpoint.every_steps",
    "checkpoint.keep",
    "log.every_steps",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learning:
    """What is learned, by which network, and how: all that the train step is made of."""

    config: ml_collections.ConfigDict
    run_plan: RunPlan
    task: Task
    network: nn.Module
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation

    def new_state(self, variables: Tree) -> TrainState:
        """Returns the state before the first step of a run that starts from `variables`."""
        return new_state(variables, self.optimizer, ema=self.config.ema.decay > 0)

    def train_step(
        self, learner: nn.Module | HeadOnly | None = None, image_size: tuple[int, int] | None = None
    ) -> Callable:
        """Returns `step(state, batch)` for one device; `learner` stands in for the network, which sees `image_size`."""
        learner = learner or self.network
        image_size = None if image_size == self.run_plan.image_size else image_size
        return make_train_step(
            learner, self.task, self.optimizer, self.schedule, self.config, AXIS, image_size=image_size
        )


def learning(
    config: ml_collections.ConfigDict, info: DatasetInfo, num_devices: int, task: Task | None = None
) -> Learning:
    """Returns what a checked config comes to on a data set and so many devices; `task`: None: the config's own."""
    run_plan = derive(config, info, num_devices)
    task = task or build_task(config, info)
    if config.train.image_sizes is not None and any(kind.moves for kind in task.annotations.values()):
        raise ValueError(
            f"train.image_sizes: the task {task.name} has annotations of places in images of one size: leave it None"
        )
    schedule = make_schedule(config, run_plan)
    return Learning(
        config=config,
        run_plan=run_plan,
        task=task,
        network=build_model(config, info, task=task, axis_name=AXIS),
        schedule=schedule,
        optimizer=make_optimizer(config, schedule, task.own_scopes),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run whose weights are known and whose files are open; `start` makes its programs."""

    workdir: str
    lock: Lock  # the directory is this process's until it is closed
    learning: Learning
    saved_config: ml_collections.ConfigDict  # what its checkpoints say: the same, with this run's own manifest
    dataset: Dataset
    devices: Devices
    variables: Tree  # before the first step, on the host
    checkpoints: Checkpoints
    reporter: Reporter
    first_step: int  # completed updates at this start
    notes: list[str]  # what to tell once the log is open

    @property
    def config(self) -> ml_collections.ConfigDict:
        """What the run works with."""
        return self.learning.config

    @property
    def run_plan(self) -> RunPlan:
        """Its durations and sizes."""
        return self.learning.run_plan

    @property
    def task(self) -> Task:
        """What is learned."""
        return self.learning.task

    @property
    def is_main(self) -> bool:
        """Whether this process writes what is written once."""
        return self.devices.process_index == 0

    def restore(self, step: int) -> TrainState:
        """Returns the state saved after `step`, as NumPy arrays."""
        return self.checkpoints.restore(step, jax.eval_shape(self.learning.new_state, self.variables))


def prepare(config: ml_collections.ConfigDict, workdir: str) -> Run:
    """Returns the run of a config in `workdir`, new or resumed. Nothing runs over images yet.

    Raises:
      ValueError: for anything in the config or the data that the user can mend.
    """
    lock = Lock(workdir)
    try:
        return _prepare(config, workdir, lock)
    except BaseException:
        lock.close()
        raise


def _prepare(config: ml_collections.ConfigDict, workdir: str, lock: Lock) -> Run:
    # 1. The config: checked, with what it leaves to the weights that it starts from, and what is in the directory.
    notes: list[str] = []
    validate(config)
    is_main = jax.process_index() == 0
    check_bucket(workdir, "--workdir", lambda path: epath.Path(path).exists())
    if is_main and epath.Path(workdir).exists():
        lock.take()
    newest = _newest(workdir, notes.append)
    own = _own_config(workdir, newest, notes.append)
    source = None if newest else initial.find_source(config)
    config = initial.fill_in(config, source, own)
    validate(config)

    # 2. The data set, opened once; a run on a folder keeps to the photos of its first start.
    config = manifest.resume(config, workdir)
    saved_config = manifest.saved(config, workdir)
    dataset = Dataset.open(config.data, annotations(config))
    info = dataset.info

    # 3. What is learned, by which network, how, and how long, on these devices.
    devices = Devices(config.train.num_devices)
    task = build_task(config, info)
    best_by = task.metric(config.checkpoint.best_metric)
    task = task.fitted(lambda field: dataset.values(field, info.train_split))
    learned = learning(config, info, devices.count, task)
    run_plan, network = learned.run_plan, learned.network
    if few := check_norms(config, run_plan, network.plan, network.head_layers(run_plan.image_size)):
        notes.append(few)

    # 4. The weights before the first step.
    variables = initial.first_variables(config, learned.network, task, info, source, notes.append)

    # 5. The run's directory. From here on it holds this run and no other.
    _check_same_run(workdir, saved_config, own)
    if is_main:
        try:
            epath.Path(workdir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{workdir} cannot be made: {error.strerror}: give another --workdir") from error
        lock.take()
        write_whole(epath.Path(workdir) / "config.json", to_json(saved_config))
    if is_main:
        manifest.save(dataset.source, workdir, notes.append)
        if config.data.name == "folder":  # of a large set the annotations are not read just for advice
            notes += task.advice(lambda field: dataset.values(field, info.train_split), info)
    checkpoints = Checkpoints(workdir, keep=config.checkpoint.keep, metric=best_by, newest=newest)
    first_step = checkpoints.latest_step() or 0
    reporter = Reporter(
        workdir,
        task,
        best_by,
        total_steps=run_plan.total_steps,
        start_step=first_step,
        is_main=is_main,
        steps_per_epoch=run_plan.steps_per_epoch,
        batch_size=config.train.batch_size,
    )
    return Run(
        workdir=workdir,
        lock=lock,
        learning=learned,
        saved_config=saved_config,
        dataset=dataset,
        devices=devices,
        variables=variables,
        checkpoints=checkpoints,
        reporter=reporter,
        first_step=first_step,
        notes=notes,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Started:
    """A run on its devices."""

    state: TrainState  # replicated
    learner: nn.Module | HeadOnly  # the network, or its head alone where embeddings are computed once
    source: BatchSource
    stages: Stages
    evaluator: Evaluator
    patience: Patience
    to_evaluate: bool  # the run stopped before an evaluation that was due
    finished: bool


def start(run: Run) -> Started:
    """Puts the state on the devices and begins to compile, while the first batch is still to be read."""
    config, run_plan, devices = run.config, run.run_plan, run.devices
    # 6. The state: this run's newest checkpoint, or the weights of step 4.
    state = run.restore(run.first_step) if run.first_step else jax.jit(run.learning.new_state)(run.variables)

    # 7. Batches: of images, or of embeddings that a frozen backbone makes of them once.
    network = run.learning.network
    learner, source = network, ImageBatches(run.dataset, config.seed)
    if config.train.embedding_views:
        learner, source = HeadOnly(network), _embed(run, state.variables(ema=False))

    # 8. The programs, and when to stop early.
    state = devices.replicate(state)
    steps = [(begin, run.learning.train_step(learner, size)) for begin, size in run_plan.image_sizes]
    stages = Stages(devices, steps, run.first_step)
    evaluator = Evaluator(
        learner,
        run.task,
        source,
        devices,
        device_batch=run_plan.eval_device_batch,
        num_images=run.dataset.info.num_eval,
    )
    patience = Patience(config.train.patience, run.task.metric(config.checkpoint.best_metric))
    to_evaluate = False
    if run.first_step:
        was_due = due(run.first_step, run_plan.eval_steps, run_plan.total_steps)
        to_evaluate = was_due and not run.checkpoints.was_evaluated(run.first_step)
        counted = run.first_step - 1 if to_evaluate else run.first_step
        patience.resume(run.checkpoints.best(), counted, run_plan.eval_steps, run_plan.total_steps)
    finished = run.first_step >= run_plan.total_steps or patience.exhausted
    if isinstance(source, ImageBatches):  # a head alone compiles at once: nothing to hide
        kinds, size, count = run.dataset.annotations, run_plan.image_size, len(devices.local)
        shapes = batches.shapes(kinds, size, count, run_plan.device_batch, train=True)
        if not finished:
            stages.compile_first(state, shapes)
        eval_shapes = batches.shapes(kinds, size, count, run_plan.eval_device_batch, train=False)
        evaluator.compile_ahead(state.variables(ema=True), eval_shapes)
        if not finished:
            stages.compile_others(state, shapes)
    return Started(
        state=state,
        learner=learner,
        source=source,
        stages=stages,
        evaluator=evaluator,
        patience=patience,
        to_evaluate=to_evaluate,
        finished=finished,
    )


def _embed(run: Run, variables: Tree) -> EmbeddingBatches:
    """Returns batches of the embeddings of both splits, computed or read now."""
    config, dataset = run.config, run.dataset
    network = run.learning.network
    check_network(network, run.task)
    directory = config.train.embedding_dir or os.path.join(run.workdir, "embeddings")
    extract = Extractor(
        network, run.task, variables, config, dataset, run.devices, directory=directory, log=run.reporter.info
    )

    def embedded(split: str, num_views: int) -> Embedded:
        values = {name: dataset.values(name, split) for name in run.task.annotations}
        return Embedded(extract(split, num_views), values)

    info = dataset.info
    return EmbeddingBatches(
        embedded(info.train_split, config.train.embedding_views), embedded(info.eval_split, 1), config.seed
    )


def _newest(workdir: str, log: Callable[[str], None]) -> Saved | None:
    """Returns the checkpoint that this run goes on from, the same on all processes; None where it has none."""
    newest, refusal, step = None, None, -1
    if jax.process_index() == 0:  # one process moves the damaged ones aside, the others are told
        try:
            newest = checkpoint.newest_whole(workdir, log)
            step = newest.step if newest else -1
        except (ValueError, OSError) as error:
            refusal, step = error, -2
    agreed = agree(step)
    if refusal is not None:
        raise refusal
    if agreed == -2:
        raise ValueError(f"{workdir} has no checkpoint to go on from: the first process says why")
    return newest if newest is not None or agreed == -1 else checkpoint.read_step(workdir, agreed)


def _own_config(workdir: str, newest: Saved | None, log: Callable[[str], None]) -> ml_collections.ConfigDict | None:
    """Returns the config of the run in the directory, by config.json or else its newest checkpoint; None: no run."""
    path, found, fault = epath.Path(workdir) / "config.json", None, None
    if path.exists():
        try:
            found = from_json(path.read_text())
        except (ValueError, TypeError, AttributeError, KeyError):
            fault = "was damaged"
    elif newest is not None:
        fault = "was missing"
    if fault is not None:
        what = f"restored from the checkpoint of step {newest.step}" if newest else "written anew: nothing is saved yet"
        log(f"warning: {path} {fault} and is {what}")
    return newest.config if found is None and newest is not None else found


def _check_same_run(workdir: str, config: ml_collections.ConfigDict, own: ml_collections.ConfigDict | None) -> None:
    """Raises ValueError, with the differences, if the run in the directory has another config."""
    found = {} if own is None else difference(config, own)
    lines = [line for field, line in found.items() if field not in FREE_FIELDS]
    if lines:
        raise ValueError(
            f"{workdir} holds a run with another config ({'; '.join(lines)}): give another --workdir or delete it"
        )
