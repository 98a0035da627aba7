{{/* Pod template of the Job that makes models. */}}
{{- define "onlinerlhf.modelsPod" -}}
{{- $models := .Values.models }}
{{- $values := dict }}
metadata:
  labels:
    {{- include "onlinerlhf.selector" . | nindent 4 }}
    app.kubernetes.io/component: models
spec:
  {{- include "onlinerlhf.podHead" (dict "root" . "component" "models" "values" $values) | nindent 2 }}
  restartPolicy: OnFailure
  terminationGracePeriodSeconds: 10
  containers:
    - name: bootstrap
      image: {{ include "onlinerlhf.image" (dict "root" . "room" "learner" "image" ($models.bootstrap.image | default .Values.learner.image)) }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [/opt/venv/bin/onlinerlhf]
      args: [bootstrap, --out, /models, --scale, {{ $models.bootstrap.scale }}, --seed, {{ $models.bootstrap.seed | quote }}]
      workingDir: /tmp
      securityContext:
        {{- include "onlinerlhf.containerSecurity" . | nindent 8 }}
      resources:
        {{- toYaml $models.bootstrap.resources | nindent 8 }}
      env:
        - name: OMP_NUM_THREADS
          valueFrom:
            resourceFieldRef:
              containerName: bootstrap
              resource: limits.cpu
        - name: HF_HUB_OFFLINE
          value: "1"
        - name: TOKENIZERS_PARALLELISM
          value: "false"
        - name: HOME
          value: /tmp
      volumeMounts:
        - name: models
          mountPath: /models
        - name: tmp
          mountPath: /tmp
  volumes:
    {{- include "onlinerlhf.modelsVolume" . | nindent 4 }}
    - name: tmp
      emptyDir:
        sizeLimit: 1Gi
{{- end }}
