{{/* The controller's environment; secrets are references. */}}
{{- define "lrf.environment" -}}
{{- $controller := .Values.controller -}}
{{- range $name, $value := mergeOverwrite (include "lrf.plainEnvironment" . | fromYaml) (deepCopy $controller.env) }}
{{- if not (hasKey $controller.secretEnv $name) }}
- {name: {{ $name | quote }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- range $name, $reference := $controller.secretEnv }}
- name: {{ $name | quote }}
  valueFrom:
    secretKeyRef:
      name: {{ splitList "/" $reference | first | quote }}
      key: {{ splitList "/" $reference | last | quote }}
{{- end }}
{{- end }}

{{- define "lrf.plainEnvironment" -}}
LRF_LOG_LEVEL: {{ .Values.controller.logLevel }}
{{ include "lrf.storageSettings" . }}
{{- if .Values.pipelines.multiUser }}
KF_PIPELINES_SA_TOKEN_PATH: /var/run/secrets/kubeflow/pipelines/token
{{- end }}
{{- with include "lrf.pushgateway" . }}
LRF_PUSHGATEWAY: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "lrf.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: settings, mountPath: /etc/lrf/controller.yaml, subPath: controller.yaml, readOnly: true}
- {name: specs, mountPath: /etc/lrf/specs, readOnly: true}
{{- if .Values.objectStorage.existingSecret }}
- {name: keys, mountPath: /etc/lrf/keys, readOnly: true}
{{- end }}
{{- if .Values.objectStorage.caConfigMap }}
- {name: ca, mountPath: /etc/lrf/ca, readOnly: true}
{{- end }}
{{- if .Values.pipelines.multiUser }}
- {name: kubeflow-token, mountPath: /var/run/secrets/kubeflow/pipelines, readOnly: true}
{{- end }}
{{- end }}

{{- define "lrf.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.controller.tmpSize | quote }}
- name: settings
  configMap:
    name: {{ include "lrf.fullname" . }}
- name: specs
  configMap:
    name: {{ include "lrf.fullname" . }}-specs
{{- with .Values.objectStorage.existingSecret }}
- name: keys
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0440
{{- end }}
{{- with .Values.objectStorage.caConfigMap }}
- name: ca
  configMap:
    name: {{ . | quote }}
{{- end }}
{{- if .Values.pipelines.multiUser }}
- name: kubeflow-token
  projected:
    sources:
      - serviceAccountToken:
          audience: pipelines.kubeflow.org
          expirationSeconds: 7200
          path: token
{{- end }}
{{- end }}
