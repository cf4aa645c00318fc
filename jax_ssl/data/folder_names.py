"""What the name of a folder says: a split, images, annotations, or a system folder. In many languages.

Names are compared without case, accents, separators, numbers and filler words ("set", "images").
"""

import re
import unicodedata

TRAIN, TEST, VALIDATION, OTHER = "train", "test", "validation", "other"
WORDS = {
    TRAIN: "train training traning trainval trn tr learn learning fit background entrenamiento treino treinamento "
    "entrainement apprentissage addestramento trainieren обучение 训练 訓練 学習 훈련 학습",
    TEST: "test testing tests tst te ts eval evaluation evaluate holdout heldout prueba pruebas teste testes essai "
    "тест 测试 測試 テスト 評価 시험 테스트",
    VALIDATION: "val valid validation validating validate vali va dev devel development validacion validacao "
    "validierung validazione проверка 验证 驗證 検証 검증",
    OTHER: "unlabeled unlabelled unsupervised unlab extra pred predict prediction submission",
}
ROLES = {word: role for role, words in WORDS.items() for word in words.split()}
AMBIGUOUS = set(  # may also be classes: te (Telugu), `valid` beside `invalid`, land under development
    "tr trn te ts tst va fit background learn learning valid validate dev devel development evaluation evaluate extra "
    "predict prediction submission essai prueba verifica".split()
)
FILLERS = set(
    "set sets data dataset split splits folder dir image images img imgs pic pics picture pictures photo photos jpg "
    "jpeg png the my full all small mini resized cropped crop only part samples examples ing imagenet ilsvrc clsloc "
    "集 集合 データ 셋 세트".split()
)
IMAGES = set("image images img imgs jpegimages jpgimages jpgs pngs jpegs rgb picture pictures photos".split())
ANNOTATIONS = set(
    "mask masks label labels annotation annotations annot annots ann anns anno annos gt groundtruth truth seg segs "
    "segmentation segmentations segmentationclass segmentationobject trimap trimaps depth depths bbox bboxes edges "
    "target targets thumb thumbs thumbnail thumbnails overlay overlays visualization visualizations".split()
)
SYSTEM = {
    "__macosx", "@eadir", "#recycle", "@recycle", "#snapshot", "$recycle.bin", "recycler", "system volume information",
    "lost+found", "lost.dir", "found.000", "__pycache__", "@tmp", "@sharebin", "_gsdata_", "network trash folder",
    "temporary items", "node_modules", "wandb", "lightning_logs", "mlruns",
}  # fmt: skip
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}


def is_system_folder(name: str) -> bool:
    """Whether a folder is hidden, or made by an operating system, file server, archiver or tool."""
    return name.startswith(".") or name.lower() in SYSTEM


def words_of(name: str) -> list[str]:
    """The words of a name, in lower case: train_setA2 -> train, set, a; ILSVRC2012_img_val -> ilsvrc, img, val."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", name) if not unicodedata.combining(char))
    if re.search(r"[\u0e00-\uffff]", plain):  # Japanese and Korean need the composed form
        plain = unicodedata.normalize("NFKC", name)
    return [part.lower() for part in re.findall(r"[^\W\d_a-zA-Z]+|[A-Z]+(?![a-z])|[A-Z]?[a-z]+", plain)]


def role(name: str) -> tuple[str, str] | None:
    """The split that a name stands for: (TRAIN, TEST, VALIDATION or OTHER, the rest of the name), or None.

    The rest is "" for `Training_Set` and `val2017`, and "seg" for `seg_train`.
    """
    words = words_of(name)
    whole = "".join(words)
    if whole in ROLES:
        return ROLES[whole], ""
    found = [(word, _word_role(word)) for word in words]
    roles = [kind for _, kind in found if kind in WORDS]
    if len(roles) != 1:
        return None
    return roles[0], " ".join(word for word, kind in found if kind not in WORDS and kind != "")


def _word_role(word: str) -> str | None:
    """The role of a word, "" for a filler word, None for any other. `trainset` and `训练集` count as two words."""
    if word in FILLERS:
        return ""
    if word in ROLES:
        return ROLES[word]
    for end in FILLERS:
        if word.endswith(end) and word[: -len(end)] in ROLES:
            return ROLES[word[: -len(end)]]
    return None


def is_ambiguous(name: str) -> bool:
    """Whether the name of a split may also be the name of a class."""
    return bool(AMBIGUOUS & set(words_of(name)))


def is_image_folder(name: str) -> bool:
    """Whether the name says that a folder holds images: `images`, `JPEGImages`."""
    return bool(IMAGES & set(words_of(name))) and not is_annotation_folder(name)


def is_annotation_folder(name: str) -> bool:
    """Whether the name says that a folder holds masks, labels, thumbnails and the like."""
    return bool(ANNOTATIONS & set(words_of(name)))


def normalise_name(name: str) -> str:
    """The name in Unicode form NFC: an accented letter may be stored as one character or as two."""
    return unicodedata.normalize("NFC", name)
