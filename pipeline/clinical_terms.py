"""Radiological terms of reports of radiographs, CT, MR and ultrasound, after the kinds of RadLex: anatomy, findings, modifiers.

A word that could be anybody's name has no place among them.
"""

TERMS = """
a abdomen abdominal abnormal abnormalities abnormality above abscess across acute adenopathy adjacent after air airway airways also
alveolar an anatomy and aneurysm angle ankle anterior aorta aortic apex apical apices appearance appears arch are area areas arterial
arteries artery as aspiration asymmetric asymmetry at atelectasis atheroma atria atrial atrium atrophy average axilla axillary basal
base bases be been before below beneath beside between bibasilar big bilateral bilaterally bladder bleb blunted blunting bone bones bony
border borders both bowel brain breast breasts broad bronchi bronchial bronchiectasis bronchus bulla bullae bullous but by calcification
calcifications calcified calculus calyx can cannot capsule cardiac cardiomediastinal cardiomegaly cardiophrenic cardiothoracic carina
carinal cartilage catheter cavitary cavitation cavity central cerebellar cerebral cervical change changed changes chest chronic
cirrhosis clavicle clavicles clear clearly coarse coarsened collapse collapsed collection colon complete completely compression
confluent congestion consistent consolidation contour contours contusion cord coronary cortex cortical costophrenic could course cranial
cyst cystic cysts decreased deep definite degeneration degenerative dense densities density developing deviation diameter diaphragm
diaphragmatic diffuse diffusely diffusion dilatation dilated disc discs dislocation displaced displacement distal dorsal drain duct
ducts due duodenum each early ectasia edema effusion effusions elbow elevated elevation elongated embolism emphysema emphysematous
enhancement enhancing enlarged enlargement erosion esophagus evidence extending extensive external failure faint fat femoral femur
fibrosis fibrotic fields finding findings fine fissure fissures flattened flattening fluid focal for fossa fracture fractured fractures
free from frontal full gallbladder ganglia gas gastric gland glands glass granuloma grossly ground half hand has have head healed heart
hematoma hemidiaphragm hemidiaphragms hemithorax hemorrhage hepatic hernia heterogeneous high hila hilar hilum hip homogeneous
horizontal humeral humerus hyperinflated hyperinflation hypertrophy ill image images implant improved improvement in increase increased
increasing infarct infarction infection inferior inferiorly infiltrate infiltrates infiltration inflammation injury intact internal
interstitial interstitium interval intestine into intubated irregular is ischemia it its joint joints kidney kidneys knee kyphosis large
larger larynx lateral laterally left lesion lesions less ligament likely limited line linear lines lingula lingular little liver lobar
lobe lobes localised localized loculated long loss low lower lucency lung lungs lymph lymphadenopathy major malignancy malignant margin
margins marked markedly marking markings marrow mass masses may medial medially mediastinal mediastinum meniscus mesentery metastases
metastasis metastatic mid middle midline mild mildly minimal minimally minor moderate moderately more most multifocal multiple muscle
muscles narrow narrowed narrowing nasal near neck new no node nodes nodular nodule nodules none nonspecific normal normally not notable
numerous oblique obstruction occipital occult oedema of old on only opacification opacities opacity opaque or orbit osseous osteopenia
osteophyte osteophytes other out oval ovary over pacemaker pacing pancreas pancreatic parenchyma parenchymal parietal part partial
partially patchy pelvic pelvis pericardial pericardium perihilar peripheral peritoneum persistent pharynx pleura pleural pneumonia
pneumothoraces pneumothorax portion position possible posterior posteriorly presence present previous prior probable probably process
prominence prominent prostate prosthesis proximal pulmonary radiograph radiopaque reduced region regions remain remains renal residual
resolution resolved reticular retina retraction rib ribs right rising rotation round rounded sacral scapula scar scarring sclerosis
sclerotic scoliosis seen segment segmental septal septum several severe severely shadow shadowing shape shaped sharp shift short
shoulder shunt side sided signs silhouette similar single sinus sinuses site size sized sizes skin skull slight slightly small smaller
smooth soft solid solitary some sparse spiculated spinal spine spleen splenic stable stenosis stent sternum stomach subcutaneous
subsegmental subtle sulcus superior superiorly suspected suspicious swelling symmetric temporal tendon tension than that the there these
thick thickened thickening thin this thoracic thorax thrombosis thrombus through thyroid tibia tiny tissue tissues to top tortuous total
trachea tracheal transverse trunk tube tubes tumor tumour ulcer unchanged under unilateral unremarkable up upper upward ureter uterus
valve valves variant vascular vasculature vein veins venous ventral ventricle ventricles ventricular vertebra vertebrae vertebral
vertical vessel vessels view views visible visualised visualized volume wall was wedge well were which while white wide widened widening
width wire wires with within without worse worsened worsening wrist zone zones
"""
