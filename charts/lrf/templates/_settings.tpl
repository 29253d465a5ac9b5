{{/* What `lrf controller --config` reads. */}}
{{- define "lrf.settings" -}}
{{- $controller := .Values.controller -}}
{{- $pipelines := dict "host" .Values.pipelines.host "experiment" .Values.pipelines.experiment -}}
{{- if .Values.pipelines.multiUser -}}
{{- $_ := set $pipelines "namespace" .Release.Namespace -}}
{{- end -}}
{{- with .Values.pipelines.root -}}
{{- $_ := set $pipelines "root" . -}}
{{- end -}}
{{- dict
  "specs" "/etc/lrf/specs"
  "state" .Values.state
  "sources" .Values.sources
  "poll" $controller.poll
  "parallel" $controller.parallel
  "attempts" $controller.attempts
  "backoff" $controller.backoff
  "pipelines" $pipelines
  "lease" (dict "name" (include "lrf.fullname" .) "duration" $controller.leaseDuration)
  "listen" "0.0.0.0:8080"
  | toYaml -}}
{{- end }}

{{/* A file for each spec: what the chart knows of the cluster, under steps.cluster, under the spec's own. */}}
{{- define "lrf.specs" -}}
{{- $files := dict -}}
{{- range $name, $spec := .Values.specs -}}
{{- $cluster := mergeOverwrite (include "lrf.cluster" $ | fromYaml) (deepCopy $.Values.steps.cluster) (deepCopy (default dict $spec.cluster)) -}}
{{- $_ := set $files (printf "%s.yaml" $name) (toYaml (merge (dict "cluster" $cluster) (omit $spec "cluster"))) -}}
{{- end -}}
{{- toYaml $files -}}
{{- end }}

{{/* What the chart knows of the section `cluster`: steps use the image, the store and the keys of the controller. */}}
{{- define "lrf.cluster" -}}
image: {{ include "lrf.ownImage" . | quote }}
pull_policy: {{ .Values.image.pullPolicy }}
{{- with .Values.imagePullSecrets }}
pull_secrets:
  {{- range . }}
  - {{ .name | quote }}
  {{- end }}
{{- end }}
{{- with include "lrf.stepsAccount" . }}
service_account: {{ . | quote }}
{{- end }}
{{- with .Values.pipelines.root }}
pipeline_root: {{ . | quote }}
{{- end }}
{{- with include "lrf.pushgateway" . }}
pushgateway: {{ . | quote }}
{{- end }}
env:
  {{- range $name, $value := include "lrf.storageSettings" . | fromYaml }}
  {{ $name }}: {{ $value | quote }}
  {{- end }}
{{- with .Values.objectStorage.existingSecret }}
secret_files: { {{- . | quote }}: /etc/lrf/keys}
{{- end }}
{{- with .Values.objectStorage.caConfigMap }}
config_maps: { {{- . | quote }}: /etc/lrf/ca}
{{- end }}
{{- end }}

{{/* The environment that object storage is reached by. */}}
{{- define "lrf.storageSettings" -}}
{{- $storage := .Values.objectStorage -}}
{{- with $storage.endpoint }}
LRF_S3_ENDPOINT: {{ . | quote }}
{{- end }}
AWS_REGION: {{ $storage.region | quote }}
LRF_S3_ADDRESSING: {{ $storage.addressing | quote }}
{{- if $storage.existingSecret }}
LRF_S3_KEYS: /etc/lrf/keys
{{- end }}
{{- if $storage.caConfigMap }}
AWS_CA_BUNDLE: /etc/lrf/ca/ca.crt
{{- end }}
{{- end }}
