"""The schema: every field of a run once, with its unit. A config is a file whose `get_config()` overrides some of them.

A field that starts as `placeholder(...)` is optional: `None` means what its comment says. Durations come in two units
(`*_steps` and `*_epochs`); give one of them and leave the other `None`.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from mnet_jax.errors import Range


def get_config() -> ml_collections.ConfigDict:
    """Returns the default run: MobileNetV3-Large on ImageNet with RMSprop and a cosine schedule."""
    config = ml_collections.ConfigDict()
    config.seed = 0  # everything random is a function of (seed, step) or (seed, epoch, example)

    config.model = model = ml_collections.ConfigDict()
    model.name = "v3_large"  # one of `mnet models`
    model.width = 1.0  # width multiplier
    model.width_rule = "tf"  # how widths are rounded: "tf", "timm", "torchvision" or (V2) "deeplab"
    model.dropout = placeholder(float)  # rate before the classifier; None = the architecture's own
    model.drop_path = 0.0  # stochastic depth, rate of the last block (grows linearly from 0)
    model.dtype = "float32"  # compute in "float32" or "bfloat16"; parameters stay float32
    model.padding = "same"  # "same" (TensorFlow) or "symmetric" (PyTorch)
    model.stem_stride = 4  # stride after the first two strided layers: 4 as published, 1 for 32 px images, 2 between
    model.norm_decay = placeholder(float)  # batch norm's running-average decay; None = the architecture's own
    model.norm_epsilon = placeholder(float)  # None = the architecture's own
    model.norm_sync = False  # batch-norm statistics over all devices instead of each device's own batch
    model.norm_frozen = False  # training, too, uses the running statistics and leaves them as they are

    config.data = data = ml_collections.ConfigDict()
    data.name = "imagenet2012"  # a TFDS name, "digits" (offline), or "folder" with `data.folder`
    data.data_dir = placeholder(str)  # TFDS directory, local or gs://; None = TFDS_DATA_DIR or ~/tensorflow_datasets
    # name "folder": photos/train/<class>/*.jpg and photos/val/..., or photos/<class>/*; with boxes: docs/detection.md
    data.folder = placeholder(str)
    data.manifest = placeholder(
        str
    )  # folder: CSV, exactly these images in these splits; a run writes its own, photos.csv
    data.split_from = placeholder(str)  # folder: photos.csv of an earlier run, whose images keep their splits
    # folder, multilabel: CSV of the classes, below the folder or elsewhere; None = labels.csv, or what is there
    data.labels = placeholder(str)
    data.train_split = placeholder(str)  # None = the data set's own; TFDS slices such as "train[:10%]" work
    data.eval_split = placeholder(str)  # None = the data set's own
    data.image_size = placeholder(object)  # a field of any type: pixels as one number, or as (height, width)
    data.image_size = 224
    data.crop = "inception"  # training crop: "inception", "pad" (pad and crop at random), "center" (as in evaluation)
    # or, for boxes, "ssd": zoom out, then cut out a part that overlaps with an object by a random share
    # or, for pixel maps, "scale": the picture larger or smaller by chance, and a window of it
    data.crop_area = (0.08, 1.0)  # inception: share of the image's area
    data.crop_ratio = (3 / 4, 4 / 3)  # inception: width over height
    data.crop_pad = 4  # pad: pixels added on each side
    data.crop_zoom_out = 0.5  # ssd: probability that the picture is first put on a canvas of up to 4 times its sides
    data.crop_scale = (0.5, 2.0)  # scale: factor on the size in which evaluation shows the picture
    data.flip = True  # mirror left and right at random
    data.eval_crop = 0.875  # evaluation: centre square of this share of the short side; 1.0 = the full image, resized
    data.interpolation = "bilinear"  # "bilinear" or "bicubic"
    data.shuffle_buffer = 16384  # encoded examples; sets that fit in `cache_mb` are shuffled as a whole
    data.max_unreadable = 10  # examples of training that cannot be decoded are replaced; more of them end the run
    data.cache_mb = 1024  # keep encoded sets up to this size in memory; 0 = never
    data.mean = placeholder(object)  # per channel, of pixels in 0..255; None = the data set's own
    data.std = placeholder(object)

    config.task = task = ml_collections.ConfigDict()
    task.name = "classification"  # what is learned: a name of `mnet_jax/tasks`, or the import path of a task of yours
    task.label_smoothing = 0.1  # classification: this share of each target is spread over all classes; multilabel: over
    # there and not there
    task.class_weights = "none"  # classification: "none", or "balanced": each class counts the same
    # multilabel: "balanced": that a class is there counts in all as much as that it is not
    # segmentation: "balanced" gives a class the median of all classes' pixels over its own
    # detection: one of models/heads/tables.py; segmentation: of mask_tables.py; None = that of the weights, where they
    # have one, else "ssdlite_tf" or "lraspp_torchvision"
    task.head = placeholder(str)
    task.min_scale = placeholder(float)  # detection: of the smallest anchors, share of a side; None = as published: 0.2
    task.max_objects = 100  # detection: of an image; of more the largest stay
    task.min_negatives = 0  # detection, softmax heads: anchors of an image without objects that are learned from
    task.focal_alpha = 0.25  # detection, sigmoid heads: weight of what is to be found, 1 - alpha of all else
    task.box_weight = 1.0  # detection: weight of the boxes' loss; that of the classes has 1
    task.nms = "class"  # detection: boxes suppress others of their "class", or "all"
    task.nms_iou = placeholder(float)  # detection: overlap above which they do; None = as published: .55 or .6
    task.score_threshold = placeholder(float)  # detection: scores above it count; None = as published: .001 or 1e-8
    # multilabel: the score from which a class is there; None = for each class that with the best F1 in evaluation
    task.max_detections = placeholder(int)  # detection: of an image; None = as published: 300 or 100
    task.output_stride = placeholder(int)  # segmentation: of the last map, 8, 16 or 32 by dilation; None = the head's
    task.auxiliary_weight = 0.0  # segmentation, deeplab heads: weight of an auxiliary head's loss; 0 = without one
    task.eval_scales = (1.0,)  # segmentation: evaluation takes the mean over the input in these sizes
    task.eval_flip = False  # segmentation: and over its mirror image

    config.augment = augment = ml_collections.ConfigDict()
    augment.brightness = 0.0  # strength: factors are drawn from 1 - s .. 1 + s
    augment.contrast = 0.0
    augment.saturation = 0.0
    augment.hue = 0.0  # shift in turns, -s .. s, at most 0.5
    augment.randaugment_layers = 0  # operations an image; 0 = off
    augment.randaugment_magnitude = 9.0  # 0 .. 10
    augment.randaugment_prob = 1.0  # probability that an operation is applied
    augment.erase_prob = 0.0  # random erasing
    augment.mixup_alpha = 0.0  # Beta(alpha, alpha); 0 = off
    augment.cutmix_alpha = 0.0  # both on: each batch draws one of the two
    augment.mix_prob = 1.0  # probability that a batch is mixed

    config.train = train = ml_collections.ConfigDict()
    train.batch_size = 1024  # images a step, over all devices
    train.num_epochs = placeholder(float)  # length of the run, in one of two units
    train.num_steps = placeholder(int)
    # ((first epoch, pixels), ...): smaller images first, as ((0, 128), (40, 176), (80, 224)); None = data.image_size
    train.image_sizes = placeholder(object)
    train.accumulate_steps = 1  # split each device's batch into at least this many parts, one update for all
    train.part_size = placeholder(int)  # and into so many that none has more images than this; None = no limit
    train.num_devices = placeholder(int)  # None = all
    train.freeze = "none"  # "none", or "backbone": only the classifier learns
    train.embedding_views = 0  # frozen backbone: embeddings of this many fixed views an image, computed once; 0 = off
    train.embedding_dir = placeholder(str)  # where they are kept for the next run; None = in the run's directory
    train.patience = placeholder(int)  # stop after this many evaluations without a better one; None = never

    config.optimizer = optimizer = ml_collections.ConfigDict()
    optimizer.name = "rmsprop"  # "rmsprop" (TensorFlow's form), "sgd" or "adamw"
    optimizer.momentum = 0.9  # rmsprop and sgd
    optimizer.nesterov = True  # sgd: Nesterov's momentum; False: the plain one of PyTorch and TensorFlow's detectors
    optimizer.decay = 0.9  # rmsprop: of the squared gradients' average
    optimizer.epsilon = 0.002  # rmsprop: inside the root; adamw: outside
    optimizer.beta1 = 0.9  # adamw
    optimizer.beta2 = 0.999
    optimizer.weight_decay = 1e-5  # l2 added to the gradient (rmsprop, sgd); decoupled (adamw)
    optimizer.decay_depthwise = False  # weight decay on depthwise kernels too
    optimizer.decay_norms = False  # and on the scales and biases of norms and layers, as PyTorch does unless told
    optimizer.clip_norm = placeholder(float)  # global gradient norm; None = off
    optimizer.backbone_lr = 1.0  # times the learning rate, for all layers but the classifier
    optimizer.layer_decay = 1.0  # times the next layer's learning rate, for each layer before the classifier

    config.schedule = schedule = ml_collections.ConfigDict()
    schedule.name = "cosine"  # "cosine", "poly", "exponential" or "constant"
    schedule.lr_per_256 = 0.016  # peak learning rate for 256 images a step; scales with the batch
    schedule.warmup_epochs = placeholder(float)  # linear from 0
    schedule.warmup_steps = placeholder(int)
    schedule.end_factor = 0.0  # cosine: last over peak rate
    schedule.power = 0.9  # poly: of the share of the run that is left
    schedule.decay_rate = 0.97  # exponential
    schedule.decay_epochs = placeholder(float)  # exponential: `decay_rate` once in this time
    schedule.decay_steps = placeholder(int)
    schedule.staircase = True  # exponential: in steps instead of continuously

    config.ema = ema = ml_collections.ConfigDict()
    ema.decay = 0.9999  # of parameters and batch statistics; 0 = off
    ema.warmup = True  # min(decay, (1 + step) / (10 + step))

    config.eval = evaluation = ml_collections.ConfigDict()
    evaluation.batch_size = 1024  # images a step, over all devices; the last batch is padded and masked
    evaluation.every_epochs = placeholder(float)  # and always at the end
    evaluation.every_steps = placeholder(int)
    evaluation.report = False  # at the end: what the task shows of the best checkpoint, such as a confusion matrix

    config.checkpoint = checkpoint = ml_collections.ConfigDict()
    checkpoint.every_epochs = placeholder(float)  # and always at the end
    checkpoint.every_steps = placeholder(int)
    checkpoint.keep = 3  # newest; the best one is kept besides
    checkpoint.best_metric = placeholder(str)  # a metric of the task, such as "loss"; None = its first ("top1")

    config.quantize = quantize = ml_collections.ConfigDict()
    quantize.train = False  # round weights and activations as int8 in training and evaluation (configs/quantize.py)
    quantize.range_decay = 0.99  # an activation's range keeps this much of itself a step

    config.log = log = ml_collections.ConfigDict()
    log.every_steps = 50

    config.init = init = ml_collections.ConfigDict()
    init.checkpoint = placeholder(str)  # fine-tune: directory of a run, or of one of its checkpoints
    init.weights = placeholder(str)  # or published weights: a name of `mnet weights`, or a .h5/.safetensors/.pth file
    init.ema = True  # start from the averaged weights where there are any

    return config


# --- What is allowed; `config.validate` checks it ---


def size_pair(size: object) -> tuple[int, int] | None:
    """Returns (height, width) in pixels of a size, which is one number or a pair; None where it is neither."""
    pair = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, tuple | list) else ()
    return pair if len(pair) == 2 and all(isinstance(side, int) for side in pair) else None


# Fields with a closed set of values.
CHOICES = {
    "model.width_rule": ("tf", "timm", "torchvision", "deeplab"),
    "model.dtype": ("float32", "bfloat16"),
    "model.padding": ("same", "symmetric"),
    "model.stem_stride": (4, 2, 1),
    "data.crop": ("inception", "pad", "center", "ssd", "scale"),
    "data.interpolation": ("bilinear", "bicubic"),
    "task.class_weights": ("none", "balanced"),
    "task.nms": ("class", "all"),
    "task.output_stride": (8, 16, 32),
    "train.freeze": ("none", "backbone"),
    "optimizer.name": ("rmsprop", "sgd", "adamw"),
    "schedule.name": ("cosine", "poly", "exponential", "constant"),
}

_POSITIVE = Range(0.0, open_low=True)
_SHARE = Range(0.0, 1.0)
_BELOW_ONE = Range(0.0, 1.0, open_high=True)
_COUNT = Range(1)

# Fields with a range.
RANGES = {
    "seed": Range(0, 2**31 - 1),
    "model.width": Range(0.0, 16.0, open_low=True),
    "model.dropout": _BELOW_ONE,
    "model.drop_path": _BELOW_ONE,
    "model.norm_decay": _BELOW_ONE,
    "model.norm_epsilon": Range(0.0, 1.0, open_low=True),
    "data.crop_pad": Range(0, 1024),
    "data.crop_zoom_out": _SHARE,
    "data.eval_crop": Range(0.05, 1.0),
    "data.shuffle_buffer": _COUNT,
    "data.cache_mb": Range(0),
    "data.max_unreadable": Range(0),
    "task.label_smoothing": _BELOW_ONE,
    "task.min_scale": Range(0.01, 0.5),
    "task.max_objects": Range(1, 10_000),
    "task.min_negatives": Range(0),
    "task.focal_alpha": _SHARE,
    "task.box_weight": Range(0.0),
    "task.auxiliary_weight": Range(0.0),
    "task.nms_iou": Range(0.0, 1.0, open_low=True),
    "task.score_threshold": _BELOW_ONE,
    "task.max_detections": Range(1, 10_000),
    "augment.brightness": _SHARE,
    "augment.contrast": _SHARE,
    "augment.saturation": _SHARE,
    "augment.hue": Range(0.0, 0.5),
    "augment.randaugment_layers": Range(0, 16),
    "augment.randaugment_magnitude": Range(0.0, 10.0),
    "augment.randaugment_prob": _SHARE,
    "augment.erase_prob": _SHARE,
    "augment.mixup_alpha": Range(0.0, 100.0),
    "augment.cutmix_alpha": Range(0.0, 100.0),
    "augment.mix_prob": _SHARE,
    "train.batch_size": _COUNT,
    "train.num_epochs": _POSITIVE,
    "train.num_steps": _COUNT,
    "train.accumulate_steps": _COUNT,
    "train.part_size": _COUNT,
    "train.num_devices": _COUNT,
    "train.embedding_views": Range(0, 1000),
    "train.patience": _COUNT,
    "optimizer.momentum": _BELOW_ONE,
    "optimizer.decay": _BELOW_ONE,
    "optimizer.epsilon": _POSITIVE,
    "optimizer.beta1": _BELOW_ONE,
    "optimizer.beta2": _BELOW_ONE,
    "optimizer.weight_decay": Range(0.0),
    "optimizer.clip_norm": _POSITIVE,
    "optimizer.backbone_lr": _POSITIVE,
    "optimizer.layer_decay": Range(0.0, 1.0, open_low=True),
    "schedule.lr_per_256": _POSITIVE,
    "schedule.warmup_epochs": Range(0.0),
    "schedule.warmup_steps": Range(0),
    "schedule.end_factor": _SHARE,
    "schedule.power": _POSITIVE,
    "schedule.decay_rate": Range(0.0, 1.0, open_low=True),
    "schedule.decay_epochs": _POSITIVE,
    "schedule.decay_steps": _COUNT,
    "ema.decay": _BELOW_ONE,
    "eval.batch_size": _COUNT,
    "eval.every_epochs": _POSITIVE,
    "eval.every_steps": _COUNT,
    "checkpoint.every_epochs": _POSITIVE,
    "checkpoint.every_steps": _COUNT,
    "checkpoint.keep": _COUNT,
    "quantize.range_decay": _BELOW_ONE,
    "log.every_steps": _COUNT,
}

# Fields that a fine-tuning config may leave None: `training/initial.py` takes them from its checkpoint or weights.
FROM_WEIGHTS = ("model.name", "data.image_size", "data.eval_crop", "data.interpolation")

# One duration, two units: give one of them.
DURATIONS = (
    ("train.num_epochs", "train.num_steps"),
    ("schedule.warmup_epochs", "schedule.warmup_steps"),
    ("schedule.decay_epochs", "schedule.decay_steps"),
    ("eval.every_epochs", "eval.every_steps"),
    ("checkpoint.every_epochs", "checkpoint.every_steps"),
)
