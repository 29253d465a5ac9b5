"""The six stages as Kubeflow Pipelines components: contracts only, the work is in lrf_core."""
