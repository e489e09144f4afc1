{{- define "triton.name" -}}
{{ printf "%s-triton" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "triton.pods" -}}
{{ printf "%s-triton-pods" (.Release.Name | trunc 51 | trimSuffix "-") }}
{{- end }}

{{- define "triton.selector" -}}
app.kubernetes.io/name: augenblick-triton
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "triton.labels" -}}
{{ include "triton.selector" . }}
app.kubernetes.io/component: recognition
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "triton.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Values.profile }}
{{- end -}}
{{- end }}
