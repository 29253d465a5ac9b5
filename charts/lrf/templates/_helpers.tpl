{{/* Names leave room for "-pushgateway": Kubernetes allows 63 characters. */}}
{{- define "lrf.fullname" -}}
{{- $chart := default .Chart.Name .Values.nameOverride -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name $chart) (contains $chart .Release.Name) -}}
{{- default $name .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{/* Takes (list . component). */}}
{{- define "lrf.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: lrf
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Takes (list . component). */}}
{{- define "lrf.labels" -}}
{{- $root := index . 0 -}}
{{ include "lrf.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Takes (dict "image" settings "tag" default). */}}
{{- define "lrf.image" -}}
{{- if .image.digest -}}
{{ printf "%s@%s" .image.repository .image.digest }}
{{- else -}}
{{ printf "%s:%s" .image.repository (default .tag .image.tag) }}
{{- end -}}
{{- end }}

{{- define "lrf.ownImage" -}}
{{ include "lrf.image" (dict "image" .Values.image "tag" .Chart.AppVersion) }}
{{- end }}

{{/* Pod security standard "restricted"; no value weakens it. */}}
{{- define "lrf.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "lrf.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "lrf.stepsAccount" -}}
{{- default (ternary (printf "%s-steps" (include "lrf.fullname" .)) "" .Values.steps.serviceAccount.create) .Values.steps.serviceAccount.name -}}
{{- end }}

{{- define "lrf.pushgateway" -}}
{{- default (ternary (printf "http://%s-pushgateway.%s:9091" (include "lrf.fullname" .) .Release.Namespace) "" .Values.pushgateway.enabled) .Values.pushgateway.url -}}
{{- end }}
