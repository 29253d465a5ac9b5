"""The six stages, and the step that merges shards, as Kubeflow Pipelines components: contracts
only, the work is in lrf_core."""
