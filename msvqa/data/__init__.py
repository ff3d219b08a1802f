"""Data: annotations, videos, clip stores and batches. `DATASETS` lists the data sets by name."""

DATASETS: dict[str, str] = {
    "msvd_qa": "msvqa.data.datasets.msvd_qa:MSVDQA",
    "msrvtt_qa": "msvqa.data.datasets.msrvtt_qa:MSRVTTQA",
    "svqa": "msvqa.data.datasets.svqa:SVQA",
    "caption_files": "msvqa.data.datasets.caption_files:CaptionFiles",
    "instructions": "msvqa.data.datasets.instructions:Instructions",
    "labelled_videos": "msvqa.data.datasets.labelled_videos:LabelledVideos",
    "mvbench": "msvqa.data.datasets.mvbench:MVBench",
    "qq_browser": "msvqa.data.datasets.qq_browser:QQBrowser",
    "table": "msvqa.data.datasets.table:Table",
    "synthetic": "msvqa.data.datasets.synthetic:Synthetic",
    "synthetic_captions": "msvqa.data.datasets.synthetic_captions:SyntheticCaptions",
    "synthetic_similarity": "msvqa.data.datasets.synthetic_similarity:SyntheticSimilarity",
}
