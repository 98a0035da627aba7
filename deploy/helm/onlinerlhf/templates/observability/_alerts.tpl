{{/* Labels that pick this release's series. */}}
{{- define "onlinerlhf.series" -}}
namespace="{{ .Release.Namespace }}",release="{{ .Release.Name }}"
{{- end }}

{{/*
One alert. Arguments: root, alert, expr, for, severity (critical: wake somebody; warning: look today), summary,
description. What to do about it is said in docs/alerts.md under the alert's name.
*/}}
{{- define "onlinerlhf.alert" -}}
- alert: {{ .alert }}
  expr: {{ .expr | quote }}
  for: {{ .for }}
  labels:
    severity: {{ .severity }}
  annotations:
    summary: {{ .summary | quote }}
    description: {{ .description | quote }}
    runbook_url: {{ printf "%s#%s" .root.Values.observability.rules.runbookBase (lower .alert) | quote }}
{{- end }}
