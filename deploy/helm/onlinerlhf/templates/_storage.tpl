{{/* Spec of a volume claim. Argument: size, storageClassName, accessModes. */}}
{{- define "onlinerlhf.claimSpec" -}}
accessModes:
  {{- toYaml .accessModes | nindent 2 }}
{{- with .storageClassName }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests:
    storage: {{ .size }}
{{- end }}
