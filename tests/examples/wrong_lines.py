"""150 wrong command lines: what is typed, and what the one line on stderr must say.

FILE, FOLDER, PICTURE and RUN stand for a file, an empty folder, a .png file and a finished run.
"""

LONG = "x" * 5000
NOT_UTF8 = "bad\udcff"
COUNT, PERIOD = "an integer from 1 to 1,000,000,000", "an integer from 0 to 1,000,000,000"
NOT_NEGATIVE = "a finite number of at least 0"
POSITIVE, UNIT = "a finite number above 0", "a number in [0, 1)"
NOT_NEGATIVE = "a finite number of at least 0"
TO_WRITE, TO_READ = "a folder that can be written", "a folder"
PICTURE = "a .png file that can be written"
RUN = "the folder of a run, with its checkpoint.pt"
MODELS = (
    "acgan, adversarial_autoencoder, autoencoder, cgan, cyclegan, dcgan, denoising_autoencoder, "
    "dragan, fvsbn, gan, gated_pixel_cnn, gated_pixel_cnn_class, gated_pixel_cnn_colour, iaf_vae, "
    "ladder_vae, lsgan, made, mixture_prior_vae, multi_scale, nade, pix2pix, pixel_cnn, "
    "pixel_cnn_pp, pixel_lstm, pixel_rnn, pixel_rnn_diagonal, pixel_vae, ppca, sngan, srgan, "
    "stylegan, vae, vq_vae, wgan, wgan_gp"
)
EXACT = (
    "fvsbn, gated_pixel_cnn, gated_pixel_cnn_class, gated_pixel_cnn_colour, made, "
    "multi_scale, nade, pixel_cnn, pixel_cnn_pp, pixel_lstm, pixel_rnn, pixel_rnn_diagonal"
)
BOUNDED = ("iaf_vae", "ladder_vae", "mixture_prior_vae", "pixel_vae", "ppca", "vae")
LIKELIHOOD = ", ".join(sorted([*EXACT.split(", "), *BOUNDED]))
COMMANDS = "list, train, sample, evaluate, compare, complete, compress, decompress, table, demo"
DATA = "checkerboard, cifar10, codes, digits, grid25, mnist, patches, ring8, shapes, textures"
PLAYER = "lr, beta1, beta2, weight_decay, clip_norm"
WIDTH = "an integer from 1 to 65,536"

#: (arguments, option, what it takes, what it got)
Line = tuple[list[str], str, str, str]


def _values(
    command: list[str], option: str, takes: str, *values: str, name: str = ""
) -> list[Line]:
    return [([*command, option, value], name or option, takes, value) for value in values]


TRAIN, SAMPLE = ["train", "vae"], ["sample", "vae", "--run", "RUN"]
LINES: list[Line] = [
    *_values(TRAIN, "--steps", COUNT, "0", "-1", "1.5", "x", "", "1e3", "1" + "0" * 30, "nan"),
    *_values(
        TRAIN, "--batch-size", "an integer from 1 to 1,000,000", "0", "-64", "64.0", "2000000"
    ),
    *_values(TRAIN, "--lr", POSITIVE, "nan", "inf", "-inf", "-1", "0", "x", "1e999", "0x10", ""),
    *_values(TRAIN, "--beta1", UNIT, "1", "-0.1", "nan", "2", "x", "-inf", "1.0000001"),
    *_values(TRAIN, "--beta2", UNIT, "1", "-0.1", "nan", "inf"),
    *_values(TRAIN, "--weight-decay", NOT_NEGATIVE, "-1", "nan", "inf", "x"),
    *_values(TRAIN, "--clip-norm", POSITIVE, "0", "-1", "nan", "inf"),
    *_values(TRAIN, "--ema-decay", UNIT, "1", "1.5", "-1", "nan", "x"),
    *_values(TRAIN, "--eval-every", PERIOD, "-1", "0.5", "x"),
    *_values(TRAIN, "--patience", PERIOD, "-1", "nan", "five"),
    *_values(TRAIN, "--checkpoint-every", PERIOD, "-1", "1e2", "x"),
    *_values(TRAIN, "--sample-every", PERIOD, "-2", "2.0", "x"),
    *_values(TRAIN, "--seed", "an integer from 0 to", "-1", "1" + "0" * 23, "x", "0.5", str(2**63)),
    *_values(TRAIN, "--precision", "no, bf16, fp16", "fp8", "", "BF16", "float32"),
    *_values(TRAIN, "--device", "auto, cpu", "gpu", "cuda:0", ""),
    *_values(TRAIN, "--data", DATA, "digts", "", "MNIST", "imagenet", "../digits"),
    *_values(TRAIN, "--data", "data that vae can be trained on", "ring8", "grid25"),
    *_values(["train", "pixel_cnn"], "--data", "data that pixel_cnn can", "checkerboard", "ring8"),
    *_values(TRAIN, "--data-dir", TO_READ, "FILE", "/nowhere", "FILE/x", LONG, NOT_UTF8),
    *_values(TRAIN, "--out", TO_WRITE, "FILE", "FILE/x", LONG, NOT_UTF8, "FILE/a/b"),
    *_values(TRAIN, "--out", TO_WRITE, ""),
    *_values(TRAIN, "--out", "a folder without a run", "RUN"),
    *_values(TRAIN, "--set", "NAME=VALUE", "hidden", "=3", "", "hidden:3"),
    ([*TRAIN, "--set", "latnt=3"], "--set", "hidden, latent, beta", "latnt"),
    ([*TRAIN, "--set", "spec=3"], "--set", "hidden, latent, beta", "spec"),
    ([*TRAIN, "--set", "latent=x"], "--set latent", WIDTH, "x"),
    ([*TRAIN, "--set", "latent=0"], "--set latent", WIDTH, "0"),
    ([*TRAIN, "--set", "latent="], "--set latent", WIDTH, ""),
    ([*TRAIN, "--set", "hidden=-3"], "--set hidden", WIDTH, "-3"),
    ([*TRAIN, "--set", "hidden=2.5"], "--set hidden", WIDTH, "2.5"),
    ([*TRAIN, "--set", "hidden=16", "latent=99999999"], "--set latent", WIDTH, "99999999"),
    ([*TRAIN, "--set", "beta=nan"], "--set beta", NOT_NEGATIVE, "nan"),
    ([*TRAIN, "--set", "beta=-1"], "--set beta", NOT_NEGATIVE, "-1"),
    (["train", "gan", "--set", "kind=bcee"], "--set kind", "bce, hinge, lsgan, wgan", "bcee"),
    (["train", "gan", "--set", "saturating=yes"], "--set saturating", "true, false", "yes"),
    (["train", "gan", "--set", "label_smoothing=2"], "--set label_smoothing", "in [0, 1]", "2"),
    (["train", "gan", "--set", "k=0"], "--set k", "an integer from 1 to 100", "0"),
    *_values(TRAIN, "--player", "PLAYER.NAME=VALUE", "lr=1", name="--player"),
    *_values(TRAIN, "--player", "NAME=VALUE", "model.lr", "", name="--player"),
    ([*TRAIN, "--player", "model.rate=1"], "--player model", PLAYER, "rate"),
    ([*TRAIN, "--player", "model.=1"], "--player model", PLAYER, ""),
    ([*TRAIN, "--player", "model.lr=nan"], "--player model.lr", POSITIVE, "nan"),
    ([*TRAIN, "--player", "model.lr=0"], "--player model.lr", POSITIVE, "0"),
    ([*TRAIN, "--player", "model.beta1=1"], "--player model.beta1", UNIT, "1"),
    ([*TRAIN, "--player", "model.clip_norm=x"], "--player model.clip_norm", POSITIVE, "x"),
    *(([*TRAIN, o], o, "", "nothing") for o in ("--steps", "--lr", "--out", "--set", "--data")),
    *(([*TRAIN, o], "train", o[:6], o) for o in ("--step", "--learning-rate", "--batchsize")),
    ([*TRAIN, "--outt=x"], "train", "--out", "--outt"),
    ([*TRAIN, "more"], "train", "--steps", "more"),
    ([*TRAIN, "--resume", "--out", "FOLDER"], "--resume", "a run", "FOLDER"),
    (["train", "gan", "--resume"], "--resume", "a run", "runs/gan"),
    (["train", "pixelcnn"], "MODEL", MODELS, "pixelcnn"),
    (["train", ""], "MODEL", MODELS, ""),
    (["train"], "MODEL", "", ""),
    (["trian", "vae"], "COMMAND", COMMANDS, "trian"),
    (["--steps", "3"], "COMMAND", "list, train, sample", "--steps"),
    *_values(SAMPLE, "--num", "an integer from 1 to 1,000,000", "0", "-3", "x", "2.5", "9" * 20),
    *_values(SAMPLE, "--temperature", NOT_NEGATIVE, "-1", "nan", "inf", "warm"),
    *_values(SAMPLE, "--seed", "an integer from 0 to", "1" + "0" * 23, "-1", "x"),
    *_values(SAMPLE, "--label", "an integer from 0 to 1,000,000", "-1", "cat", "1.5"),
    *_values(SAMPLE, "--out", PICTURE, "x.txt", "x", "FOLDER", "FILE/x.png", "x.jpg"),
    *_values(SAMPLE, "--out", PICTURE, LONG + ".png", NOT_UTF8 + ".png", "/proc/version/x.png"),
    *_values(["sample", "vae"], "--run", RUN, "FOLDER", "/nowhere", "FILE", LONG, NOT_UTF8),
    (["sample", "gann"], "MODEL", MODELS, "gann"),
    (["sample", "vae"], "--run", RUN, "runs/vae"),
    (["evaluate", "gan"], "MODEL", LIKELIHOOD, "gan"),
    (["evaluate", "made", "--run", "FOLDER"], "--run", RUN, "FOLDER"),
    (["evaluate", "mad"], "MODEL", MODELS, "mad"),
    (["evaluate", "made", "--num", "3"], "evaluate", "--run, --data-dir", "--num"),
    *_values(["evaluate", "made", "--run", "RUN"], "--data-dir", TO_READ, "FILE", "/nowhere"),
    *_values(["evaluate", "made", "--run", "RUN"], "--page", TO_WRITE, "FILE", "FILE/x", ""),
    (["compare"], "compare", "RUN", ""),
    (["compare", "RUN"], "RUN", "two or more folders of runs", "RUN"),
    (["compare", "RUN", "FOLDER"], "RUN", RUN, "FOLDER"),
    *_values(["compare", "RUN", "RUN"], "--data-dir", TO_READ, "FILE", "/nowhere"),
    *_values(["compare", "RUN", "RUN"], "--page", TO_WRITE, "FILE"),
    (["train", "gated_pixel_cnn_colour"], "--data", "data that gated_pixel_cnn_colour", "digits"),
    (["complete", "vae"], "MODEL", EXACT, "vae"),
    *_values(["complete", "made"], "--run", RUN, "FOLDER", "runs/made"),
    *_values(["complete", "made", "--run", "RUN"], "--num", "from 1 to 1,000", "0", "1001", "x"),
    *_values(["complete", "made", "--run", "RUN"], "--temperature", NOT_NEGATIVE, "nan"),
    *_values(["complete", "made", "--run", "RUN"], "--out", PICTURE, "x.txt", "FOLDER"),
    *_values(["table"], "--page", TO_WRITE, "FILE", "FILE/x"),
    *_values(["table"], "--steps", COUNT, "0", "many"),
    (["table", "vae", "gann"], "MODEL", MODELS, "gann"),
    (["table", "pixel_rnn", "--data", "ring8"], "--data", "data that pixel_rnn can", "ring8"),
    *_values(["table"], "--out", TO_WRITE, "FILE"),
    *_values(["demo"], "--out", TO_WRITE, "FILE", "FILE/x", NOT_UTF8),
    (["demo", "--steps", "3"], "demo", "--out", "--steps"),
]
