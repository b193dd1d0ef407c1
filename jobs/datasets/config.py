"""Configuration of the commands on data sets: one class each."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from jobs.config import JobConfig, PlaceKind, Texts, Uri, refuse_ignored

LayoutName = Literal["mvtec_ad", "visa", "insplad_fault", "mtd", "wafer", "mvtec_layout", "folders", "list"]

_OWN_LABELS = ("flawless", "test_share", "seed")
READ_BY_LAYOUT: dict[LayoutName, tuple[str, ...]] = {
    "mtd": ("train_list",),
    "wafer": _OWN_LABELS,
    "folders": _OWN_LABELS,
    "list": (*_OWN_LABELS, "category"),
}
"""Fields beside source that a layout reads; all others have their labels, split and categories from how they lie."""


class CheckDatasetConfig(JobConfig):
    """Count a data set's photos and set them against the published counts; exit code 2 where something is missing.

    Layouts: mvtec_ad (as unpacked), visa (split_csv/1cls.csv beside the objects), insplad_fault (the folder
    unsupervised_anomaly_detection), mtd (MT_Free/Imgs and so on; DifferNet's split by --train-list), wafer and folders
    (<category>/<label>/<photo>, no split), mvtec_layout (any set in MVTec's layout), list (a CSV or Parquet file).
    """

    layout: LayoutName = Field(description="how the photos lie")
    source: Uri = Field(description="folder of the data set as it was unpacked, or a list; nothing in it is changed")
    train_list: Uri | None = Field(
        None,
        description="for mtd: text file with the name of a training photo on each line, as mtd_train_filenames.txt of "
        "github.com/marco-rudolph/differnet",
    )
    category: str | None = Field(None, description="for a list without a column category: the category of its photos")
    flawless: Texts = Field(
        ["good", "normal", "ok", "free", "flawless"],
        min_length=1,
        description="labels of flawless photos in folders and lists, in any letters, separated by commas",
    )
    test_share: float = Field(
        0.2, gt=0, lt=1, description="share of the flawless photos that tests, where the data set has no split"
    )
    seed: int = Field(0, ge=0, description="seed of that split, which each photo's key decides: it is stable")

    @model_validator(mode="after")
    def _refuse_what_the_layout_has_no_use_for(self) -> Self:
        read = READ_BY_LAYOUT.get(self.layout, ())
        others = {name for names in READ_BY_LAYOUT.values() for name in names}
        refuse_ignored(self, sorted(others.difference(read)), because=f"with the layout {self.layout}")
        return self


class ConvertDatasetConfig(CheckDatasetConfig):
    """Write a data set in MVTec's layout, as links or copies, or as a list with labels; the source stays as it is."""

    output_kind: ClassVar[PlaceKind | None] = None

    output: Uri = Field(description="folder to write into, outside the source; for a list, a .csv or .parquet file")
    write: Literal["links", "copies", "list"] = Field(
        "links", description="links to local files, copies (also of and into object storage), or a list of URIs"
    )
