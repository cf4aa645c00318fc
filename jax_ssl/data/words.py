"""What people call the folders of a data set: its splits, its images, its annotations; and what systems leave behind.

Names are compared without case, accents, separators, numbers and words that say nothing ("set", "images").
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
AMBIGUOUS = set(  # a class may be called so: Telugu, `valid` beside `invalid`, land under development
    "tr trn te ts tst va fit background learn learning valid validate dev devel development evaluation evaluate extra "
    "predict prediction submission essai prueba verifica".split()
)
EMPTY = set(
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


def is_left_by_a_system(name: str) -> bool:
    """A folder that holds no images that anybody meant: hidden, of a file server, an archiver, an editor."""
    return name.startswith(".") or name.lower() in SYSTEM


def parts_of(name: str) -> list[str]:
    """train_setA2 -> train, set, a; ILSVRC2012_img_val -> ilsvrc, img, val."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", name) if not unicodedata.combining(char))
    if re.search(r"[\u0e00-\uffff]", plain):  # decomposed Japanese and Korean are composed again
        plain = unicodedata.normalize("NFKC", name)
    return [part.lower() for part in re.findall(r"[^\W\d_a-zA-Z]+|[A-Z]+(?![a-z])|[A-Z]?[a-z]+", plain)]


def role(name: str) -> tuple[str, str] | None:
    """What a folder of this name is for: (TRAIN, TEST, VALIDATION or OTHER, the rest of its name), or None.

    The rest is "" where nothing is in the name but that: `Training_Set`, `val2017`; it is "seg" in `seg_train`.
    """
    words = parts_of(name)
    whole = "".join(words)
    if whole in ROLES:
        return ROLES[whole], ""
    found = [(word, _of_word(word)) for word in words]
    roles = [kind for _, kind in found if kind in WORDS]
    if len(roles) != 1:
        return None
    return roles[0], " ".join(word for word, kind in found if kind not in WORDS and kind != "")


def _of_word(word: str) -> str | None:
    """The role of a word, "" for a word that says nothing, None for any other; `trainset` and `训练集` are split."""
    if word in EMPTY:
        return ""
    if word in ROLES:
        return ROLES[word]
    for end in EMPTY:
        if word.endswith(end) and word[: -len(end)] in ROLES:
            return ROLES[word[: -len(end)]]
    return None


def is_ambiguous(name: str) -> bool:
    """Whether a name that may be a split's may well be a class's."""
    return bool(AMBIGUOUS & set(parts_of(name)))


def are_images(name: str) -> bool:
    return bool(IMAGES & set(parts_of(name))) and not are_annotations(name)


def are_annotations(name: str) -> bool:
    return bool(ANNOTATIONS & set(parts_of(name)))


def spelling(name: str) -> str:
    """One name for all ways of writing it: composed and decomposed accents are the same letters."""
    return unicodedata.normalize("NFC", name)
